package main

import (
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/machine"
	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

// fuzzGuest is a guest that does not end by itself, with a disk.
func fuzzGuest(t *testing.T) *machine.Guest {
	t.Helper()
	const size, diskSize = 64 << 20, 1 << 20
	var files []*os.File
	add := func(f *os.File, err error) protocol.File {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		return protocol.File(len(files) - 1)
	}
	image, err := os.CreateTemp(t.TempDir(), "disk")
	if err == nil {
		err = image.Truncate(diskSize)
	}
	s := &protocol.Spec{
		Name: "fuzz", VCPUs: 1, MaxVCPUs: 2, MemoryBytes: size,
		KVM: add(os.OpenFile("/dev/kvm", os.O_RDWR, 0)), Memory: add(memory.Create("guest", size)),
		Log: add(os.CreateTemp(t.TempDir(), "log")), Entropy: add(os.Open("/dev/urandom")),
		Boot:  protocol.Boot{Kernel: add(tinykernel.File(t, tinykernel.Code{}.Spin()), nil)},
		Disks: []protocol.Disk{{File: add(image, err)}},
	}
	g, perr := machine.FromSpec(s, files)
	if perr != nil {
		t.Fatal(perr)
	}
	if perr = g.Load(); perr != nil {
		t.Fatal(perr)
	}
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	return g
}

// FuzzServe has whatever comes on the control socket answered, beside a guest that runs: a packet
// and, unless that ends the guest, a query that still has to be answered on a connection of its own.
func FuzzServe(f *testing.F) {
	for _, s := range []string{
		`{"id":1,"method":"query"}`, `{"id":2,"method":"stop"}`, `{"id":3,"method":"pause"}`, `{"method":"configure","spec":{}}`,
		`{"method":"set-vcpus","vcpus":2}`, `{"method":"set-vcpus","vcpus":-1}`, `{"method":"set-balloon","balloonBytes":18446744073709551615}`,
		`{"method":"resize-disk","disk":-1,"size":1}`, `{"method":"resize-disk","disk":0,"size":18446744073709551615}`,
		`{"method":"set-disk-limits","disk":9}`, `{"method":"set-link","nic":1}`, `{"method":"console"}`, `{`, ``,
	} {
		f.Add([]byte(s), uint8(len(s)%2))
	}
	f.Fuzz(func(t *testing.T, packet []byte, descriptors uint8) {
		result, err := os.CreateTemp(t.TempDir(), "result")
		if err != nil {
			t.Fatal(err)
		}
		s := &server{guest: fuzzGuest(t), result: result, finished: make(chan struct{})}
		over := make(chan struct{})
		go func() {
			defer close(over)
			<-s.guest.Done()
			if err := s.finish(); err != nil {
				t.Error(err)
			}
		}()
		s.sent(t, packet, int(descriptors%4))
		select {
		case <-s.guest.Done(): // the packet has ended it: so does the process, and answers nobody any more
		default:
			resp := s.sent(t, []byte(`{"id":7,"method":"query"}`), 0)
			if resp.ID != 7 || resp.Error != nil || resp.Status == nil {
				t.Errorf("afterwards a query is answered by %+v", resp)
			}
		}
		s.guest.Stop()
		<-over
	})
}

// sent sends one packet to the server on a new connection, and returns its answer, if there is one.
func (s *server) sent(t *testing.T, packet []byte, descriptors int) (resp protocol.Response) {
	t.Helper()
	ours, theirs, err := seqpacket.Pair()
	if err != nil {
		t.Fatal(err)
	}
	c, err := seqpacket.FromFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	fds := make([]int, descriptors)
	for i := range fds {
		fds[i] = int(ours.Fd())
	}
	// More than a packet holds is not sent at all.
	if err := unix.Sendmsg(int(ours.Fd()), packet, unix.UnixRights(fds...), nil, 0); err != nil && !errors.Is(err, unix.EMSGSIZE) {
		t.Fatal(err)
	}
	if err := unix.Shutdown(int(ours.Fd()), unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	s.answerAll(c)
	c.Close()
	mine, err := seqpacket.FromFile(ours)
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	files, err := mine.Recv(&resp)
	seqpacket.CloseAll(files)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Errorf("%q is answered by what is no answer: %v", packet, err)
	}
	return resp
}
