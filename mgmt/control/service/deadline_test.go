package service

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1/ashlarv1connect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serveWith serves handler behind WithDeadlines over HTTP/2.
func serveWith(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(WithDeadlines(handler))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// A reader that CloseRead has ended returns, and so does a later one.
func TestCloseRead(t *testing.T) {
	ended := make(chan error, 2)
	s := serveWith(t, func(w http.ResponseWriter, r *http.Request) {
		read := make(chan error)
		go func() {
			_, err := r.Body.Read(make([]byte, 1))
			read <- err
		}()
		time.Sleep(20 * time.Millisecond)
		CloseRead(r.Context())
		ended <- <-read
		_, err := r.Body.Read(make([]byte, 1))
		ended <- err
	})
	body, keepOpen := io.Pipe()
	defer keepOpen.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+ashlarv1connect.VirtualMachineServiceConsoleProcedure, body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.ProtoMajor != 2 {
		t.Fatalf("spoke %s", res.Proto)
	}
	for range 2 {
		select {
		case err := <-ended:
			if err == nil {
				t.Error("a read went well")
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a read goes on")
		}
	}
}

// A client that does not send what it has announced does not keep the call.
func TestSlowSender(t *testing.T) {
	ended := make(chan error, 1)
	s := serveWith(t, func(_ http.ResponseWriter, r *http.Request) {
		b := r.Body.(*body)
		b.timeout = 50 * time.Millisecond
		_, err := io.ReadAll(r.Body)
		ended <- err
	})
	body, keepOpen := io.Pipe()
	defer keepOpen.Close()
	go keepOpen.Write([]byte("a beginning"))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+ashlarv1connect.ImageServiceUploadImageProcedure, body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Client().Do(r)
	if err == nil {
		res.Body.Close()
	}
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read = %v, want a deadline", err)
	}
}

// A stream that is silent for long, and then goes on, is not cut off.
func TestSilence(t *testing.T) {
	s := serveWith(t, func(w http.ResponseWriter, r *http.Request) {
		b := r.Body.(*body)
		b.timeout = 50 * time.Millisecond
		io.ReadAll(r.Body)
		w.Write([]byte("one "))
		w.(http.Flusher).Flush()
		time.Sleep(200 * time.Millisecond)
		w.Write([]byte("two"))
	})
	res, err := s.Client().Post(s.URL+"/x", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, err := io.ReadAll(res.Body); err != nil || string(got) != "one two" {
		t.Errorf("read %q, %v", got, err)
	}
}
