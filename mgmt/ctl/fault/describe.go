package fault

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
)

// A FieldName turns a field path of a request into what the user typed: a
// flag, or the name of an argument. It returns "" for fields it does not know.
type FieldName func(path string) string

// Print writes err as a sentence and lines of details. field may be nil.
func Print(w io.Writer, err error, field FieldName) {
	fmt.Fprintf(w, "ashlarctl: %s\n", Sentence(err))
	for _, line := range Details(err, field) {
		fmt.Fprintf(w, "  %s\n", line)
	}
}

// Sentence is err without the marks of the protocol.
func Sentence(err error) string {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return err.Error()
	}
	text := ce.Message()
	switch {
	case TLS(err):
		text = tlsSentence(err)
	case hasViolations(ce):
		text = "the host refused this"
	case connect.IsWireError(ce):
	case ce.Code() == connect.CodeUnavailable:
		text = "the host does not answer: " + rootText(ce)
	case ce.Code() == connect.CodeCanceled:
		text = "interrupted"
	case Transient(err):
		text = "the connection to the host broke: " + rootText(ce)
	}
	if text == "" {
		text = "the host answered " + strings.ToUpper(ce.Code().String())
	}
	return strings.Replace(err.Error(), ce.Error(), text, 1)
}

// hasViolations tells whether Details names what the message only repeats.
func hasViolations(ce *connect.Error) bool {
	for _, d := range ce.Details() {
		v, err := d.Value()
		if bad, ok := v.(*errdetails.BadRequest); err == nil && ok && len(bad.GetFieldViolations()) > 0 {
			return true
		}
	}
	return false
}

// rootText is what lies below the protocol's own wrapping.
func rootText(ce *connect.Error) string {
	return strings.TrimPrefix(ce.Message(), "unavailable: ")
}

// tlsSentence says whose certificate was not accepted and what to look at.
func tlsSentence(err error) string {
	var (
		hostname x509.HostnameError
		unknown  x509.UnknownAuthorityError
		record   tls.RecordHeaderError
	)
	const look = "; compare `ashlarctl context show` with the host's screen"
	switch {
	case errors.As(err, &hostname):
		return "the host's certificate is for another name: " + hostname.Error() + look
	case errors.As(err, &unknown):
		return "the host's certificate is not issued by this context's CA" + look
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return "what answers at this address does not speak TLS" + look
	case remoteTLS(err):
		return "the host did not accept this context's certificate (" + alert(err) + ")"
	}
	return "the host's certificate is not acceptable: " + innermost(err).Error()
}

// alert is the text of the TLS alert in err.
func alert(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, "remote error: "); i >= 0 {
		return text[i+len("remote error: "):]
	}
	return text
}

// innermost unwraps err as far as it goes.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// Details are the lines below the sentence: field violations with the flag
// they belong to, violated preconditions, help.
func Details(err error, field FieldName) []string {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return nil
	}
	var lines []string
	for _, d := range ce.Details() {
		v, err := d.Value()
		if err != nil {
			continue
		}
		switch v := v.(type) {
		case *errdetails.BadRequest:
			for _, f := range v.GetFieldViolations() {
				lines = append(lines, violation(f.GetField(), f.GetDescription(), field))
			}
		case *errdetails.PreconditionFailure:
			for _, p := range v.GetViolations() {
				if !strings.Contains(ce.Message(), p.GetDescription()) {
					lines = append(lines, p.GetDescription())
				}
			}
		case *errdetails.Help:
			for _, l := range v.GetLinks() {
				lines = append(lines, strings.TrimSpace(l.GetDescription()+" "+l.GetUrl()))
			}
		}
	}
	return lines
}

// violation is one line about one field.
func violation(path, text string, field FieldName) string {
	name := ""
	if field != nil {
		name = field(path)
	}
	if name == "" {
		return path + ": " + text
	}
	return fmt.Sprintf("%s (%s): %s", name, path, text)
}
