package schema

import (
	"time"

	"github.com/google/uuid"
)

// Arrays as append() is given them.

func arrayOf[T any](element uint32, add func(*array, T), values ...T) []byte {
	var a array
	for _, v := range values {
		add(&a, v)
	}
	return a.of(element)
}

func ArrayOfUUIDs(v ...uuid.UUID) []byte { return arrayOf(elementUUID, (*array).uuid, v...) }
func ArrayOfTexts(v ...string) []byte    { return arrayOf(elementText, (*array).text, v...) }
func ArrayOfTimes(v ...time.Time) []byte { return arrayOf(elementTimestamptz, (*array).time, v...) }
func ArrayOfBytes(v ...[]byte) []byte    { return arrayOf(elementBytea, (*array).bytes, v...) }
func ArrayOfBigints(v ...int64) []byte   { return arrayOf(elementBigint, (*array).bigint, v...) }
func ArrayOfInts(v ...int32) []byte      { return arrayOf(elementInt, (*array).int, v...) }

// ArrayOfTextsAgain writes into a buffer that held something else before.
func ArrayOfTextsAgain(v ...string) []byte {
	var a array
	a.string("something longer than what comes after it")
	a.null()
	a.reset()
	for _, s := range v {
		a.text(s)
	}
	return a.of(elementText)
}
