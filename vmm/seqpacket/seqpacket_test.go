package seqpacket

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type message struct {
	N    int    `json:"n"`
	Text string `json:"text,omitempty"`
}

func pair(tb testing.TB) (a, b *Conn) {
	tb.Helper()
	fa, fb, err := Pair()
	if err != nil {
		tb.Fatal(err)
	}
	if a, err = FromFile(fa); err != nil {
		tb.Fatal(err)
	}
	if b, err = FromFile(fb); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// raw returns a socket to write packets to by hand, and its other end as a Conn.
func raw(tb testing.TB) (int, *Conn) {
	tb.Helper()
	fa, fb, err := Pair()
	if err != nil {
		tb.Fatal(err)
	}
	c, err := FromFile(fb)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { fa.Close(); c.Close() })
	return int(fa.Fd()), c
}

// open counts the descriptors of this process.
func open(tb testing.TB) int {
	tb.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	return len(d)
}

func TestSendRecv(t *testing.T) {
	a, b := pair(t)
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := a.Send(message{N: 1, Text: "hello"}, f, f); err != nil {
		t.Fatal(err)
	}
	if err := a.Send(message{N: 2}); err != nil {
		t.Fatal(err)
	}
	var m message
	files, err := b.Recv(&m)
	if err != nil || m != (message{1, "hello"}) || len(files) != 2 {
		t.Fatalf("Recv = %+v, %d files, %v", m, len(files), err)
	}
	for _, got := range files {
		if _, err := got.WriteString("x"); err != nil {
			t.Errorf("received descriptor: %v", err)
		}
		flags, err := unix.FcntlInt(got.Fd(), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("received descriptor has flags %#x, %v; want close on exec", flags, err)
		}
	}
	CloseAll(files)
	m = message{}
	if files, err := b.Recv(&m); err != nil || m.N != 2 || files != nil {
		t.Errorf("Recv = %+v, %v, %v", m, files, err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != 1 && info.Size() != 2 {
		t.Errorf("file: %v, %v", info, err)
	}
	a.Close()
	if _, err := b.Recv(&m); !errors.Is(err, io.EOF) {
		t.Errorf("Recv after the end = %v, want EOF", err)
	}
}

func TestLimits(t *testing.T) {
	a, b := pair(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	files := make([]*os.File, MaxFiles)
	for i := range files {
		files[i] = null
	}
	// {"n":0,"text":""} has 17 bytes.
	largest := message{Text: strings.Repeat("x", MaxMessage-17)}
	if err := a.Send(largest, files...); err != nil {
		t.Fatalf("largest message: %v", err)
	}
	var m message
	got, err := b.Recv(&m)
	if err != nil || m != largest || len(got) != MaxFiles {
		t.Errorf("Recv of the largest message: %d files, %v", len(got), err)
	}
	CloseAll(got)
	if err := a.Send(message{Text: largest.Text + "x"}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Send of more: %v, want ErrTooLarge", err)
	}
	if err := a.Send(m, append(files, null)...); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Send of more files: %v, want ErrTooLarge", err)
	}
	if err := a.Send(make(chan int)); err == nil {
		t.Error("Send of what is no JSON: no error")
	}
}

// TestHostilePackets sends what Send never would. Each is refused whole, with
// its descriptors closed, and the connection goes on.
func TestHostilePackets(t *testing.T) {
	fd, c := raw(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	rights := func(n int) []byte {
		fds := make([]int, n)
		for i := range fds {
			fds[i] = int(null.Fd())
		}
		return unix.UnixRights(fds...)
	}
	tests := []struct {
		name string
		data []byte
		oob  []byte
		want error
	}{
		{"too long", make([]byte, MaxMessage+1), nil, ErrTooLarge},
		{"far too long", make([]byte, 3*MaxMessage/2), rights(1), ErrTooLarge},
		{"too many descriptors", []byte(`{}`), rights(MaxFiles + 1), ErrTooLarge},
		{"as many as the kernel lets", []byte(`{}`), rights(253), ErrTooLarge},
		{"no JSON", []byte("hello"), nil, ErrMalformed},
		{"no JSON, with descriptors", []byte("hello"), rights(3), ErrMalformed},
		{"two documents", []byte(`{}{}`), nil, ErrMalformed},
		{"another type", []byte(`{"n":"x"}`), nil, ErrMalformed},
		{"nothing but descriptors", nil, rights(2), ErrMalformed},
		{"deep", []byte(strings.Repeat("[", MaxMessage)), nil, ErrMalformed},
	}
	before := open(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := unix.Sendmsg(fd, tt.data, tt.oob, nil, 0); err != nil {
				t.Fatal(err)
			}
			var m message
			files, err := c.Recv(&m)
			if !errors.Is(err, tt.want) || files != nil {
				t.Errorf("Recv = %v, %v; want %v", files, err, tt.want)
			}
			if after := open(t); after != before {
				t.Errorf("%d descriptors are open, %d before", after, before)
			}
			if err := unix.Sendmsg(fd, []byte(`{"n":7}`), nil, nil, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Recv(&m); err != nil || m.N != 7 {
				t.Errorf("the next message: %+v, %v", m, err)
			}
		})
	}
}

// TestCredentials sends another kind of control message.
func TestCredentials(t *testing.T) {
	fd, c := raw(t)
	u := &unix.Ucred{Pid: int32(os.Getpid()), Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}
	if err := unix.Sendmsg(fd, []byte(`{"n":1}`), unix.UnixCredentials(u), nil, 0); err != nil {
		t.Fatal(err)
	}
	var m message
	if files, err := c.Recv(&m); err != nil || m.N != 1 || files != nil {
		t.Errorf("Recv = %+v, %v, %v", m, files, err)
	}
	if uid, err := c.PeerUID(); err != nil || uid != u.Uid {
		t.Errorf("PeerUID = %d, %v; want %d", uid, err, u.Uid)
	}
}

func TestManySenders(t *testing.T) {
	a, b := pair(t)
	const senders, each = 8, 200
	var all sync.WaitGroup
	for s := range senders {
		all.Go(func() {
			for i := range each {
				if err := a.Send(message{N: s*each + i, Text: strings.Repeat("x", s*100)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	last := make([]int, senders)
	for range senders * each {
		var m message
		if _, err := b.Recv(&m); err != nil {
			t.Fatal(err)
		}
		s := m.N / each
		if m.N < last[s] || len(m.Text) != s*100 {
			t.Fatalf("message %d of sender %d after %d", m.N, s, last[s])
		}
		last[s] = m.N
	}
	all.Wait()
}

func TestClose(t *testing.T) {
	a, _ := pair(t)
	done := make(chan error)
	go func() {
		var m message
		_, err := a.Recv(&m)
		done <- err
	}()
	time.Sleep(10 * time.Millisecond)
	a.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Recv = %v, want ErrClosed", err)
	}
	if err := a.Send(message{}); err == nil {
		t.Error("Send after Close: no error")
	}
}

func TestDial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := Dial(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Dial of no socket: %v", err)
	}
}

func TestFromFileRefuses(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := FromFile(null); err == nil {
		c.Close()
		t.Error("FromFile of a device: no error")
	}
}

// FuzzRecv sends packets with descriptors over a real socket pair.
func FuzzRecv(f *testing.F) {
	f.Add([]byte(`{"n":1}`), 0)
	f.Add([]byte(`{"n":1,"text":"x"}`), 2)
	f.Add([]byte(``), 1)
	f.Add([]byte(`{"n":1e999}`), 64)
	f.Add([]byte("[[[["), 65)
	null, err := os.Open(os.DevNull)
	if err != nil {
		f.Fatal(err)
	}
	defer null.Close()
	before := -1
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		fds := make([]int, min(uint(n), 100))
		for i := range fds {
			fds[i] = int(null.Fd())
		}
		ours, theirs, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		c, err := FromFile(theirs)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Sendmsg(int(ours.Fd()), data, unix.UnixRights(fds...), nil, 0); err != nil && !errors.Is(err, unix.EMSGSIZE) {
			t.Fatal(err)
		}
		ours.Close()
		var m message
		files, err := c.Recv(&m)
		switch {
		case err != nil && files != nil:
			t.Errorf("an error, and %d files", len(files))
		case err == nil && len(files) != len(fds):
			t.Errorf("%d files, %d were sent", len(files), len(fds))
		}
		CloseAll(files)
		c.Close()
		if after := open(t); before >= 0 && after != before {
			t.Errorf("%d descriptors are open, %d before", after, before)
		} else if before < 0 {
			before = after
		}
	})
}

func Example() {
	ours, theirs, err := Pair()
	if err != nil {
		fmt.Println(err)
		return
	}
	a, err := FromFile(ours)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	b, err := FromFile(theirs)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()
	if err := a.Send(map[string]string{"say": "hello"}, os.Stdin); err != nil {
		fmt.Println(err)
		return
	}
	var got map[string]string
	files, err := b.Recv(&got)
	fmt.Println(got["say"], len(files), err)
	CloseAll(files)
	// Output: hello 1 <nil>
}

// A Listener takes connections, whether its socket blocks or not, until it is closed.
func TestListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 8)); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(os.NewFile(uintptr(fd), "listen"))
	if err != nil {
		t.Fatal(err)
	}
	before := open(t)
	for n := range 3 {
		c, err := Dial(path)
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Send(message{N: n}); err != nil {
			t.Fatal(err)
		}
		var m message
		if _, err := s.Recv(&m); err != nil || m.N != n {
			t.Errorf("Recv = %+v, %v", m, err)
		}
		c.Close()
		s.Close()
	}
	if now := open(t); now != before {
		t.Errorf("%d descriptors, were %d", now, before)
	}
	done := make(chan error)
	go func() { _, err := l.Accept(); done <- err }()
	time.Sleep(10 * time.Millisecond)
	l.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Accept = %v, want ErrClosed", err)
	}
	stream, _, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(stream); err == nil {
		t.Error("Listen on a pipe: no error")
	}
}
