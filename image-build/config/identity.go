package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxChain is how many CAs may stand between a certificate and the operator's.
const maxChain = 4

func (r *reader) api(n *yaml.Node) API {
	o := r.object(n, "api", "port", "ca", "certificate", "key")
	const hint = "`ashlarctl config init` makes it"
	a := API{Port: o.integer("port", DefaultPort, 1, 65535)}
	var roots, chain []*x509.Certificate
	a.CA = r.text(o.require("ca", hint), "api.ca", func(s string) (err error) {
		if roots, err = certificates(s); err != nil {
			return err
		}
		for _, c := range roots {
			if !c.IsCA {
				return fmt.Errorf("the certificate of %q is not a CA's", clip(c.Subject.String()))
			}
		}
		return nil
	})
	a.Certificate = r.text(o.require("certificate", hint), "api.certificate", func(s string) (err error) {
		if chain, err = certificates(s); err != nil || len(roots) == 0 {
			return err
		}
		return issued(chain, roots)
	})
	a.Key = r.text(o.require("key", hint), "api.key", func(s string) error {
		return checkKey(s, a.Certificate)
	})
	return a
}

// certificates reads one or more PEM certificates and nothing else.
func certificates(s string) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	rest := []byte(s)
	for len(strings.TrimSpace(string(rest))) > 0 {
		block, after := pem.Decode(rest)
		if block == nil {
			return nil, errors.New("is not PEM: want -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----")
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds %q, want CERTIFICATE only", clip(block.Type))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d is damaged: %w", len(out)+1, err)
		}
		out, rest = append(out, c), after
	}
	if len(out) == 0 {
		return nil, errors.New("is empty: want a PEM certificate")
	}
	return out, nil
}

// issued checks that chain leads from a server's certificate to one of roots,
// whatever the time is.
func issued(chain, roots []*x509.Certificate) error {
	leaf := chain[0]
	if len(leaf.ExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return errors.New("is not for a server: its extended key usage lacks serverAuth")
	}
	for c, depth := leaf, 0; depth <= maxChain; depth++ {
		if parentOf(c, roots) != nil {
			return nil
		}
		parent := parentOf(c, chain[1:])
		if parent == nil {
			return fmt.Errorf("is not issued by the CA in api.ca: its issuer is %q", clip(c.Issuer.String()))
		}
		c = parent
	}
	return fmt.Errorf("has more than %d CAs between it and the one in api.ca", maxChain)
}

func parentOf(c *x509.Certificate, among []*x509.Certificate) *x509.Certificate {
	for _, p := range among {
		if string(c.RawIssuer) == string(p.RawSubject) && c.CheckSignatureFrom(p) == nil {
			return p
		}
	}
	return nil
}

// checkKey wants one private key, that of certificate where that is right.
func checkKey(s, certificate string) error {
	block, _ := pem.Decode([]byte(s))
	switch {
	case block == nil:
		return errors.New("is not PEM: want -----BEGIN PRIVATE KEY----- to -----END PRIVATE KEY-----")
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
		return errors.New("is encrypted: the host has nobody to ask for a password")
	case !strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return fmt.Errorf("holds %q, want PRIVATE KEY", clip(block.Type))
	case certificate == "":
		return nil
	}
	if _, err := tls.X509KeyPair([]byte(certificate), []byte(s)); err != nil {
		return fmt.Errorf("does not go with api.certificate: %v", strings.TrimPrefix(err.Error(), "tls: "))
	}
	return nil
}

// Warnings are sentences about what is right in form but will not work at the
// time now: certificates that are not valid yet, have expired or do so within
// 30 days.
func (d *Document) Warnings(now time.Time) []string {
	var out []string
	for _, f := range []struct{ path, pem string }{{"api.ca", d.API.CA}, {"api.certificate", d.API.Certificate}} {
		certs, err := certificates(f.pem)
		if err != nil {
			continue // Parse has refused it.
		}
		for _, c := range certs {
			if w := outOfTime(c, now); w != "" {
				out = append(out, fmt.Sprintf("%s: the certificate of %q %s", f.path, clip(c.Subject.String()), w))
			}
		}
	}
	return out
}

func outOfTime(c *x509.Certificate, now time.Time) string {
	const day = time.DateOnly
	switch {
	case now.Before(c.NotBefore):
		return "is not valid before " + c.NotBefore.UTC().Format(day)
	case now.After(c.NotAfter):
		return "expired on " + c.NotAfter.UTC().Format(day)
	case now.Add(30 * 24 * time.Hour).After(c.NotAfter):
		return "expires on " + c.NotAfter.UTC().Format(day)
	}
	return ""
}
