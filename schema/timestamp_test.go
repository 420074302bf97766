package schema_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/digitorus/pkcs7"
	"github.com/digitorus/timestamp"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// authority is a time stamping authority with a certificate of its own root.
type authority struct {
	roots *x509.CertPool
	key   *rsa.PrivateKey
	cert  *x509.Certificate
	now   time.Time
	asked atomic.Int32
	twist func(*timestamp.Request) // what a faulty one does to the request
}

// serials tells the certificates of authorities apart, whose root has the same name.
var serials atomic.Int64

func newAuthority(t *testing.T, now time.Time) *authority {
	t.Helper()
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certify := func(template, parent *x509.Certificate, public any) *x509.Certificate {
		template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.Add(100*24*time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, public, rootKey)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	root = certify(root, root, rootKey.Public())
	a := &authority{roots: x509.NewCertPool(), now: now}
	a.roots.AddCert(root)
	if a.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	a.cert = certify(&x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1)), Subject: pkix.Name{CommonName: "tsa"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping},
	}, root, a.key.Public())
	return a
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.asked.Add(1)
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Header.Get("Content-Type") != "application/timestamp-query" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	req, err := timestamp.ParseRequest(body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if a.twist != nil {
		a.twist(req)
	}
	ts := timestamp.Timestamp{
		HashAlgorithm: req.HashAlgorithm, HashedMessage: req.HashedMessage, Time: a.now, Nonce: req.Nonce,
		Policy: asn1.ObjectIdentifier{1, 2, 3}, AddTSACertificate: req.Certificates,
	}
	answer, err := ts.CreateResponseWithOpts(a.cert, a.key, req.HashAlgorithm)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/timestamp-reply")
	w.Write(answer)
}

func TestTimestamp(t *testing.T) {
	t.Parallel()
	l := newSignedLedger(t)
	// The ledger's own clock is the database's: the stamper's is set by what it records.
	l.now = time.Now().UTC().Truncate(time.Second)
	tsa := newAuthority(t, l.now)
	server := httptest.NewServer(tsa)
	defer server.Close()
	s := schema.Timestamper{Ledger: l.ledger, URL: server.URL, Client: server.Client(), Roots: tsa.roots, Clock: func() time.Time { return l.now }}
	stamp := func(want bool) {
		t.Helper()
		if got, err := s.Stamp(t.Context()); err != nil || got != want {
			t.Fatalf("Stamp = %v, %v, want %v", got, err, want)
		}
	}
	stamp(false) // there is no checkpoint
	l.append(t, 10)
	l.grow(t, 0)
	first := l.sign(t)
	stamp(true)
	stamp(false) // today's is done
	l.grow(t, 0)
	l.sign(t)
	l.now = l.now.Add(25 * time.Hour)
	stamp(true)
	l.now = l.now.Add(25 * time.Hour)
	stamp(false) // no newer checkpoint
	if tsa.asked.Load() != 2 {
		t.Errorf("the authority was asked %d times, want 2", tsa.asked.Load())
	}

	e, err := schema.EventAt(t.Context(), l.db, 11)
	if err != nil {
		t.Fatal(err)
	}
	p, err := domain.DecodeAs[domain.CheckpointTimestamped](e.Data, nil)
	if err != nil || p.Size != 10 || p.Checkpoint != first.Note || !p.StampedAt.Equal(tsa.now) {
		t.Fatalf("recorded = %+v, %v, want the first checkpoint's", p, err)
	}
	if at, err := evidence.VerifyTimestamp(p.Token, p.Checkpoint, tsa.roots); err != nil || !at.Equal(tsa.now) {
		t.Errorf("VerifyTimestamp = %v, %v, want %v", at, err, tsa.now)
	}
	for name, tc := range map[string]struct {
		token      []byte
		checkpoint string
		roots      *x509.CertPool
	}{
		"of another checkpoint":       {p.Token, strings.Replace(p.Checkpoint, "\n10\n", "\n11\n", 1), tsa.roots},
		"of an authority of nobody's": {p.Token, p.Checkpoint, x509.NewCertPool()},
		"changed":                     {append(append([]byte{}, p.Token[:len(p.Token)-1]...), p.Token[len(p.Token)-1]^1), p.Checkpoint, tsa.roots},
		"cut short":                   {p.Token[:len(p.Token)/2], p.Checkpoint, tsa.roots},
		"nothing":                     {nil, p.Checkpoint, tsa.roots},
	} {
		if _, err := evidence.VerifyTimestamp(tc.token, tc.checkpoint, tc.roots); !errors.Is(err, evidence.ErrTimestamp) {
			t.Errorf("a token %s: VerifyTimestamp = %v, want ErrTimestamp", name, err)
		}
	}
}

// TestTimestampOfFaultyAuthorities keeps nothing that does not hold.
func TestTimestampOfFaultyAuthorities(t *testing.T) {
	t.Parallel()
	l := newSignedLedger(t)
	l.append(t, 10)
	l.grow(t, 0)
	l.sign(t)
	for name, twist := range map[string]func(*timestamp.Request){
		"stamps something else":     func(r *timestamp.Request) { r.HashedMessage[0] ^= 1 },
		"repeats an earlier answer": func(r *timestamp.Request) { r.Nonce = big.NewInt(7) },
		"gives no certificate":      func(r *timestamp.Request) { r.Certificates = false },
	} {
		tsa := newAuthority(t, l.now)
		tsa.twist = twist
		server := httptest.NewServer(tsa)
		s := schema.Timestamper{Ledger: l.ledger, URL: server.URL, Client: server.Client(), Roots: tsa.roots, Clock: l.Clock}
		if done, err := s.Stamp(t.Context()); done || !errors.Is(err, evidence.ErrTimestamp) {
			t.Errorf("an authority that %s: Stamp = %v, %v, want ErrTimestamp", name, done, err)
		}
		server.Close()
	}
	if head, err := l.ledger.Head(t.Context()); err != nil || head != 10 {
		t.Errorf("head = %d, %v, want 10: nothing is recorded", head, err)
	}
}

// TestTimestampOfImpostor has one whom nobody trusts sign, and carry the certificate of one who is trusted.
func TestTimestampOfImpostor(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)
	trusted, impostor := newAuthority(t, now), newAuthority(t, now)
	sum := sha256.Sum256([]byte("checkpoint"))
	genuine := timestamp.Timestamp{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Time: now, Policy: asn1.ObjectIdentifier{1, 2, 3}, AddTSACertificate: true}
	answer, err := genuine.CreateResponseWithOpts(impostor.cert, impostor.key, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	ts, err := timestamp.ParseResponse(answer)
	if err != nil {
		t.Fatal(err)
	}
	p7, err := pkcs7.Parse(ts.RawToken)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := pkcs7.NewSignedData(p7.Content)
	if err != nil {
		t.Fatal(err)
	}
	forged.AddCertificate(trusted.cert)
	if err := forged.AddSigner(impostor.cert, impostor.key, pkcs7.SignerInfoConfig{}); err != nil {
		t.Fatal(err)
	}
	token, err := forged.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := evidence.VerifyTimestamp(token, "checkpoint", impostor.roots); err != nil {
		t.Fatalf("for who trusts the impostor: %v", err)
	}
	if _, err := evidence.VerifyTimestamp(token, "checkpoint", trusted.roots); !errors.Is(err, evidence.ErrTimestamp) || !strings.Contains(err.Error(), "not trusted") {
		t.Errorf("VerifyTimestamp = %v, want ErrTimestamp", err)
	}
}
