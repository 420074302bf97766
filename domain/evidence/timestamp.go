package evidence

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/digitorus/pkcs7"
	"github.com/digitorus/timestamp"
)

// ErrTimestamp is a time stamp that does not hold, or is about something else. It wraps ErrUnproven.
var ErrTimestamp = fmt.Errorf("%w: time stamp", ErrUnproven)

// VerifyTimestamp checks an RFC 3161 token over a checkpoint, the signed note without cosignatures, and returns the time that it
// gives. roots are the authorities that are trusted, nil the system's. Errors: ErrTimestamp.
//
// It does not ask whether the authority's certificate was revoked.
func VerifyTimestamp(token []byte, checkpoint string, roots *x509.CertPool) (time.Time, error) {
	ts, err := timestamp.Parse(token)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %w", ErrTimestamp, err)
	}
	sum := sha256.Sum256([]byte(checkpoint))
	if ts.HashAlgorithm != crypto.SHA256 || !bytes.Equal(ts.HashedMessage, sum[:]) {
		return time.Time{}, fmt.Errorf("%w: it is about something other than this checkpoint", ErrTimestamp)
	}
	signer, err := tokenSigner(token)
	if err != nil {
		return time.Time{}, err
	}
	intermediates := x509.NewCertPool()
	for _, c := range ts.Certificates {
		intermediates.AddCert(c)
	}
	// As of the time stamped: the certificate may have run out since, which takes nothing from what it signed before.
	if _, err := signer.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: ts.Time, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping},
	}); err != nil {
		return time.Time{}, fmt.Errorf("%w: its authority is not trusted: %w", ErrTimestamp, err)
	}
	return ts.Time.UTC(), nil
}

// tokenSigner is the certificate that a token is signed under, among those that it carries. The signature was checked against
// that one; which of the others are genuine says nothing.
func tokenSigner(token []byte) (*x509.Certificate, error) {
	p7, err := pkcs7.Parse(token)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTimestamp, err)
	}
	signer := p7.GetOnlySigner()
	if signer == nil { // and so its signature was not checked either
		return nil, fmt.Errorf("%w: it carries no certificate of its authority", ErrTimestamp)
	}
	return signer, nil
}
