package tunnel

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a Stream that sends what it was given.
type script struct {
	messages []*ashlarv1.ConnectVirtualMachineRequest

	mu   sync.Mutex
	got  []byte
	said int // responses
}

func (s *script) Receive() (*ashlarv1.ConnectVirtualMachineRequest, error) {
	if len(s.messages) == 0 {
		return nil, io.EOF
	}
	m := s.messages[0]
	s.messages = s.messages[1:]
	return m, nil
}

func (s *script) Send(r *ashlarv1.ConnectVirtualMachineResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, r.Data...)
	s.said++
	return nil
}

func (s *script) CloseRead() {}

// echoed is a socket whose other end sends back what it gets.
func echoed(t *testing.T) *os.File {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	guest := os.NewFile(uintptr(fds[1]), "guest")
	defer guest.Close()
	c, err := net.FileConn(guest)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	t.Cleanup(all.Wait)
	f := os.NewFile(uintptr(fds[0]), "client")
	t.Cleanup(func() { f.Close() })
	return f
}

// FuzzMessages lets a client send anything: it comes back, or is refused.
func FuzzMessages(f *testing.F) {
	message := func(r *ashlarv1.ConnectVirtualMachineRequest) []byte {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	data := message(&ashlarv1.ConnectVirtualMachineRequest{Data: []byte("data")})
	f.Add(data, data)
	f.Add([]byte{}, message(&ashlarv1.ConnectVirtualMachineRequest{Name: "virtualMachines/demo", Target: &ashlarv1.ConnectVirtualMachineRequest_Port{Port: 7}, Data: []byte("again")}))
	f.Add(data, message(&ashlarv1.ConnectVirtualMachineRequest{Target: &ashlarv1.ConnectVirtualMachineRequest_Port{Port: 8}}))
	f.Add(data, message(&ashlarv1.ConnectVirtualMachineRequest{Data: make([]byte, MaxData+1)}))
	f.Fuzz(func(t *testing.T, second, third []byte) {
		first := &ashlarv1.ConnectVirtualMachineRequest{Name: "virtualMachines/demo", Target: &ashlarv1.ConnectVirtualMachineRequest_Port{Port: 7}, Data: []byte("first")}
		s, want := &script{}, bytes.Clone(first.Data)
		for _, b := range [][]byte{second, third} {
			var r ashlarv1.ConnectVirtualMachineRequest
			if proto.Unmarshal(b, &r) != nil {
				return
			}
			s.messages = append(s.messages, &r)
			want = append(want, r.Data...)
		}
		err := (&tunnel{f: echoed(t), stream: s, first: first}).serve(t.Context())
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the end of the connection shows through: %v", err)
		}
		if s.said == 0 || err == nil && !bytes.Equal(s.got, want) || !bytes.HasPrefix(want, s.got) {
			t.Errorf("%d responses, %q came back of %q, %v", s.said, s.got, want, err)
		}
	})
}
