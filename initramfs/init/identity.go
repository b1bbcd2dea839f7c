package main

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
	"strings"
	"time"

	"github.com/ashlar-hv/ashlar/image-build/config"
)

// An identity is who the host is and whom it lets in: all PEM.
type identity struct {
	clientCA, certificate, key string
	// fingerprint is what a person compares: SHA-256 of the certificate.
	fingerprint string
}

func identityOf(doc *config.Document) identity {
	id := identity{clientCA: doc.API.CA, certificate: doc.API.Certificate, key: doc.API.Key}
	if block, _ := pem.Decode([]byte(id.certificate)); block != nil {
		id.fingerprint = fingerprint(block.Bytes)
	}
	return id
}

// fingerprint writes the SHA-256 of a certificate as browsers and openssl do.
func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum), " ", ":")
}

// throwaway makes an identity for a host that has none configured. Its CA's key
// is forgotten at once: nobody can ever show a certificate issued by it.
func throwaway(hostname string, now time.Time) (identity, error) {
	caKey, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	key, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err1, err2); err != nil {
		return identity{}, fmt.Errorf("make an identity: %w", err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nobody (no operator's CA is configured)"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	host := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: hostname}, DNSNames: []string{hostname},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caDER, err1 := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	der, err2 := x509.CreateCertificate(rand.Reader, host, ca, key.Public(), caKey)
	keyDER, err3 := x509.MarshalPKCS8PrivateKey(key)
	if err := errors.Join(err1, err2, err3); err != nil {
		return identity{}, fmt.Errorf("make an identity: %w", err)
	}
	return identity{
		clientCA: block("CERTIFICATE", caDER), certificate: block("CERTIFICATE", der),
		key: block("PRIVATE KEY", keyDER), fingerprint: fingerprint(der),
	}, nil
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
