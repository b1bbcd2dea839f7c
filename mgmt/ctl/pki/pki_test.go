package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// verify checks a certificate against the authority.
func verify(t *testing.T, a *Authority, p Pair, use x509.ExtKeyUsage, name string) error {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(a.Certificate) {
		t.Fatal("the authority's certificate is not PEM")
	}
	c, err := ParseCertificate(p.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}})
	return err
}

func TestChain(t *testing.T) {
	a, err := NewAuthority("test", now)
	if err != nil {
		t.Fatal(err)
	}
	a, err = LoadAuthority(a.Pair)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := a.Client("admin", now)
	if err != nil {
		t.Fatal(err)
	}
	host, err := a.Host([]string{"rack1", "192.0.2.10", "::1", "[2001:db8::1]"}, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"rack1", "192.0.2.10", "::1", "2001:db8::1"} {
		if err := verify(t, a, host, x509.ExtKeyUsageServerAuth, name); err != nil {
			t.Errorf("host as %s: %v", name, err)
		}
	}
	if err := verify(t, a, host, x509.ExtKeyUsageServerAuth, "rack2"); err == nil {
		t.Error("the host's certificate is good for another name")
	}
	if err := verify(t, a, host, x509.ExtKeyUsageClientAuth, ""); err == nil {
		t.Error("the host's certificate is good for a client")
	}
	if err := verify(t, a, admin, x509.ExtKeyUsageClientAuth, ""); err != nil {
		t.Errorf("admin: %v", err)
	}
	if err := verify(t, a, admin, x509.ExtKeyUsageServerAuth, ""); err == nil {
		t.Error("the admin's certificate is good for a host")
	}
	other, err := NewAuthority("test", now)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(t, other, admin, x509.ExtKeyUsageClientAuth, ""); err == nil {
		t.Error("another authority of the same name vouches for the admin")
	}
}

func TestAuthority(t *testing.T) {
	a, err := NewAuthority("test", now)
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := a.cert.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		t.Errorf("key = %T, want ECDSA on P-256", a.cert.PublicKey)
	}
	if got, want := a.cert.NotAfter, now.AddDate(10, 0, 0); !got.Equal(want) {
		t.Errorf("NotAfter = %v, want %v", got, want)
	}
	late, err := a.Client("late", now.AddDate(5, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseCertificate(late.Certificate)
	if err != nil || c.NotAfter.After(a.cert.NotAfter) {
		t.Errorf("a certificate outlives its authority: %v, %v", c.NotAfter, err)
	}
}

func TestLoadAuthorityRefuses(t *testing.T) {
	a, err := NewAuthority("a", now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewAuthority("b", now)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := a.Client("admin", now)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]Pair{
		"nothing":        {},
		"no certificate": {Certificate: a.Key, Key: a.Key},
		"no key":         {Certificate: a.Certificate, Key: a.Certificate},
		"another's key":  {Certificate: a.Certificate, Key: b.Key},
		"no authority":   admin,
	} {
		if got, err := LoadAuthority(p); err == nil || got != nil {
			t.Errorf("%s: LoadAuthority() = %v, %v", name, got, err)
		}
	}
	if _, err := a.Host(nil, now); err == nil {
		t.Error("a host certificate without a name")
	}
}

func FuzzParseCertificate(f *testing.F) {
	a, err := NewAuthority("a", now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(a.Certificate)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseCertificate(b); (c == nil) != (err != nil) {
			t.Errorf("ParseCertificate(%q) = %v, %v", b, c, err)
		}
		Fingerprint(b)
	})
}
