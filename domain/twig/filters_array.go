package twig

import (
	"math"
	"slices"
)

func filterBatch(r *run, a []Value) Value {
	list := r.sequence(a[0], "batch")
	size := int(math.Ceil(toFloat(a[1])))
	fill := opt(a, 2, nil)
	preserve := truthy(opt(a, 3, true))
	if size < 1 {
		r.fail(CodeArguments, "batch: the size must be at least 1, got %d", size)
	}
	result := r.array(list.Len()/size + 1)
	var chunk *Array
	for i, v := range list.vals {
		if i%size == 0 {
			chunk = r.array(min(size, list.Len()))
			result.add(chunk)
		}
		if preserve {
			chunk.set(list.key(i), v)
		} else {
			chunk.add(v)
		}
	}
	if fill != nil && chunk != nil && chunk.Len() < size {
		r.charge((size - chunk.Len()) * arrayElementBytes)
		for chunk.Len() < size {
			chunk.add(fill)
		}
	}
	return result
}

func filterColumn(r *run, a []Value) Value {
	list := r.sequence(a[0], "column")
	key := r.arrayKey(a[1])
	index := opt(a, 2, nil)
	result := r.array(list.Len())
	for _, v := range list.vals {
		row, ok := v.(*Array)
		if !ok {
			continue
		}
		cell, ok := row.Get(key)
		if a[1] == nil {
			cell, ok = row, true
		}
		if !ok {
			continue
		}
		if index != nil {
			if k, ok := row.Get(r.arrayKey(index)); ok {
				result.set(r.arrayKey(k), cell)
				continue
			}
		}
		result.add(cell)
	}
	return result
}

func filterFilter(r *run, a []Value) Value {
	list := r.sequence(a[0], "filter")
	arrow := a[1]
	result := r.array(0)
	for i, v := range list.vals {
		if truthy(r.invoke(arrow, v, list.key(i).value())) {
			r.charge(arrayElementBytes)
			result.set(list.key(i), v)
		}
	}
	return result
}

func filterFind(r *run, a []Value) Value {
	list := r.sequence(a[0], "find")
	arrow := a[1]
	for i, v := range list.vals {
		if truthy(r.invoke(arrow, v, list.key(i).value())) {
			return v
		}
	}
	return nil
}

func filterMap(r *run, a []Value) Value {
	list := r.sequence(a[0], "map")
	arrow := a[1]
	result := r.array(list.Len())
	for i, v := range list.vals {
		result.set(list.key(i), r.invoke(arrow, v, list.key(i).value()))
	}
	return result
}

func filterReduce(r *run, a []Value) Value {
	list := r.sequence(a[0], "reduce")
	arrow, carry := a[1], opt(a, 2, nil)
	for i, v := range list.vals {
		carry = r.invoke(arrow, carry, v, list.key(i).value())
	}
	return carry
}

func filterMerge(r *run, a []Value) Value {
	result := r.array(0)
	for i := range a {
		v := a[i]
		if v == absent {
			continue
		}
		list, ok := v.(*Array)
		if !ok {
			r.fail(CodeType, `"merge" works on sequences and mappings, got %s`, typeName(v))
		}
		r.charge(list.Len() * arrayElementBytes)
		for i, v := range list.vals {
			if k := list.key(i); k.IsInt {
				result.add(v)
			} else {
				result.set(k, v)
			}
		}
	}
	return result
}

func filterKeys(r *run, a []Value) Value {
	list, ok := a[0].(*Array)
	if !ok {
		return newArray(0)
	}
	result := r.array(list.Len())
	for i := range list.vals {
		result.add(list.key(i).value())
	}
	return result
}

func filterFirst(r *run, a []Value) Value {
	if list, ok := a[0].(*Array); ok {
		if list.Len() == 0 {
			return false
		}
		return list.vals[0]
	}
	return substring(r.text(a[0]), 0, 1)
}

func filterLast(r *run, a []Value) Value {
	if list, ok := a[0].(*Array); ok {
		if list.Len() == 0 {
			return false
		}
		return list.vals[list.Len()-1]
	}
	return substring(r.text(a[0]), -1, 1)
}

func filterReverse(r *run, a []Value) Value {
	list, ok := a[0].(*Array)
	if !ok {
		runes := []rune(r.text(a[0]))
		slices.Reverse(runes)
		return r.str(string(runes))
	}
	preserve := truthy(opt(a, 1, false))
	result := r.array(list.Len())
	for i := list.Len() - 1; i >= 0; i-- {
		if k := list.key(i); preserve || !k.IsInt {
			result.set(k, list.vals[i])
		} else {
			result.add(list.vals[i])
		}
	}
	return result
}

func filterSlice(r *run, a []Value) Value {
	start, preserve := r.integer("slice", a[1]), truthy(opt(a, 3, false))
	length, all := int64(math.MaxInt64), true
	if v := opt(a, 2, nil); v != nil {
		length, all = r.integer("slice", v), false
	}
	list, ok := a[0].(*Array)
	if !ok {
		return substring(r.text(a[0]), start, length)
	}
	from, to := sliceBounds(int64(list.Len()), start, length, all)
	result := r.array(max(to-from, 0))
	for i := from; i < to; i++ {
		if k := list.key(i); preserve || !k.IsInt {
			result.set(k, list.vals[i])
		} else {
			result.add(list.vals[i])
		}
	}
	return result
}

// sliceBounds is PHP's reading of a start and a length, both of which may count from the end.
func sliceBounds(n, start, length int64, all bool) (from, to int) {
	if start < 0 {
		start = max(n+start, 0)
	}
	start = min(start, n)
	end := n
	if !all {
		if length < 0 {
			end = n + length
		} else if length < n-start {
			end = start + length
		}
	}
	return int(start), int(max(end, start))
}

func filterShuffle(r *run, a []Value) Value {
	list, ok := a[0].(*Array)
	if !ok {
		runes := []rune(r.text(a[0]))
		r.shuffle(len(runes), func(i, j int) { runes[i], runes[j] = runes[j], runes[i] })
		return r.str(string(runes))
	}
	result := r.array(list.Len())
	result.vals = append(result.vals, list.vals...)
	result.next = int64(len(result.vals))
	r.shuffle(len(result.vals), func(i, j int) {
		result.vals[i], result.vals[j] = result.vals[j], result.vals[i]
	})
	return result
}

func filterJoin(r *run, a []Value) Value {
	list, ok := a[0].(*Array)
	if !ok { // PHP casts what is no array to one
		list = NewList(a[0])
		if a[0] == nil {
			return ""
		}
	}
	glue := r.text(opt(a, 1, ""))
	and := glue
	if v := opt(a, 2, nil); v != nil && list.Len() > 0 {
		and = r.text(v)
		if only := list.vals[0]; len(list.vals) == 1 && and != glue {
			if _, ok := only.(*Array); ok || only == nil { // Twig's function returns it as it is, which its type forbids
				r.fail(CodeType, `"join" with two glues needs texts, got %s`, typeName(only))
			}
		}
	}
	if list.Len() == 0 {
		return ""
	}
	var b []byte
	for i, v := range list.vals {
		switch {
		case i == 0:
		case i == list.Len()-1:
			b = append(b, and...)
		default:
			b = append(b, glue...)
		}
		b = r.appendText(b, v)
		if len(b) > r.limits.ValueBytes {
			r.charge(len(b))
		}
	}
	return r.str(string(b))
}
