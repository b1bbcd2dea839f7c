// Package pki makes the certificates of an Ashlar installation: one authority
// per operator, client certificates for people, server certificates for hosts
// (X.509 v3 as RFC 5280 profiles it, ECDSA on P-256).
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"
)

// Years that certificates hold. Hosts and people get at most what the
// authority has left.
const (
	authorityYears = 10
	leafYears      = 10
)

// backdate forgives clocks that are behind, as those of servers with an empty
// battery are.
const backdate = 24 * time.Hour

// A Pair is a certificate and its private key, both PEM.
type Pair struct {
	Certificate []byte
	Key         []byte
}

// An Authority issues certificates.
type Authority struct {
	Pair
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority that is valid from now for ten years.
func NewAuthority(name string, now time.Time) (*Authority, error) {
	tmpl := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name, Organization: []string{"Ashlar"}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.AddDate(authorityYears, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the authority's key: %w", err)
	}
	pair, err := issue(tmpl, tmpl, key, key)
	if err != nil {
		return nil, fmt.Errorf("make the authority: %w", err)
	}
	return LoadAuthority(pair)
}

// LoadAuthority takes up an authority made earlier.
func LoadAuthority(p Pair) (*Authority, error) {
	cert, err := ParseCertificate(p.Certificate)
	if err != nil {
		return nil, fmt.Errorf("authority's certificate: %w", err)
	}
	if !cert.IsCA {
		return nil, fmt.Errorf("authority's certificate: %s is no certificate authority", cert.Subject)
	}
	key, err := parseKey(p.Key)
	if err != nil {
		return nil, fmt.Errorf("authority's key: %w", err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("authority: key and certificate do not belong together")
	}
	return &Authority{Pair: p, cert: cert, key: key}, nil
}

// Client issues a certificate for a person or program that calls hosts.
func (a *Authority) Client(name string, now time.Time) (Pair, error) {
	return a.leaf(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: []string{"Ashlar"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, now)
}

// Host issues a server certificate. The names are host names and IP
// addresses; the first is also the common name.
func (a *Authority) Host(names []string, now time.Time) (Pair, error) {
	if len(names) == 0 || names[0] == "" {
		return Pair{}, errors.New("issue host certificate: a host name is needed")
	}
	tmpl := &x509.Certificate{
		Subject:     pkix.Name{CommonName: names[0], Organization: []string{"Ashlar"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(strings.Trim(n, "[]")); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	return a.leaf(tmpl, now)
}

// leaf issues a certificate with a new key for what tmpl names.
func (a *Authority) leaf(tmpl *x509.Certificate, now time.Time) (Pair, error) {
	tmpl.NotBefore = now.Add(-backdate)
	tmpl.NotAfter = now.AddDate(leafYears, 0, 0)
	if tmpl.NotAfter.After(a.cert.NotAfter) {
		tmpl.NotAfter = a.cert.NotAfter
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.BasicConstraintsValid = true
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make the key of %s: %w", tmpl.Subject.CommonName, err)
	}
	p, err := issue(tmpl, a.cert, key, a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("issue the certificate of %s: %w", tmpl.Subject.CommonName, err)
	}
	return p, nil
}

// issue signs tmpl for key's owner with the parent's key.
func issue(tmpl, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (Pair, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Pair{}, err
	}
	tmpl.SerialNumber = serial.Add(serial, big.NewInt(1))
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		return Pair{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

// ParseCertificate reads the first certificate of a PEM text.
func ParseCertificate(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("no PEM block of type CERTIFICATE")
	}
	return x509.ParseCertificate(block.Bytes)
}

// parseKey reads a PEM private key, PKCS #8.
func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("no PEM block of type PRIVATE KEY")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key is %T, not ECDSA", key)
	}
	return ec, nil
}

// Fingerprint is the SHA-256 of a PEM certificate as pairs of digits, which
// the console of the host shows as well; empty where there is no certificate.
func Fingerprint(text []byte) string {
	block, _ := pem.Decode(text)
	if block == nil {
		return ""
	}
	sum := sha256.Sum256(block.Bytes)
	pairs := make([]string, len(sum))
	for i, b := range sum {
		pairs[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(pairs, ":")
}
