package writecache

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/qemu-tests/qmp"
)

const size = 1 << 20

// A machine is a QEMU that has the disk, and runs nothing.
type machine struct {
	t   *testing.T
	d   *Disk
	dir string
	cmd *exec.Cmd
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir()}
	d, err := Serve(filepath.Join(m.dir, "disk"), size, filepath.Join(m.dir, "nbd"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.cut()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	m.d = d
	m.start()
	return m
}

func (m *machine) start() {
	m.t.Helper()
	sock := filepath.Join(m.dir, "qmp")
	os.Remove(sock)
	m.cmd = exec.Command("qemu-system-x86_64", "-M", "none", "-accel", "tcg", "-nodefaults", "-display", "none", "-qmp", "unix:"+sock+",server=on,wait=off",
		"-blockdev", "driver=nbd,node-name=disk,export=,server.type=unix,server.path="+filepath.Join(m.dir, "nbd"))
	var said bytes.Buffer
	m.cmd.Stderr = &said
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		q, err := qmp.Dial(sock)
		if err == nil {
			q.Close()
			return
		}
		if time.Now().After(deadline) {
			m.cut()
			m.t.Fatalf("QEMU does not answer: %v: %s", err, said.String())
		}
	}
}

// cut kills QEMU.
func (m *machine) cut() {
	if m.cmd != nil {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait()
		m.cmd = nil
	}
}

// io runs a command of qemu-io's, and returns what it says.
func (m *machine) io(command string) string {
	m.t.Helper()
	q, err := qmp.Dial(filepath.Join(m.dir, "qmp"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer q.Close()
	out, err := q.Do("human-monitor-command", map[string]string{"command-line": `qemu-io disk "` + command + `"`})
	if err != nil {
		m.t.Fatal(err)
	}
	return string(out)
}

// ok is io of what must succeed.
func (m *machine) ok(command string) {
	m.t.Helper()
	if out := m.io(command); strings.Contains(out, "failed") || strings.Contains(out, "rror") {
		m.t.Errorf("%s: %s", command, out)
	}
}

// sectors are the first bytes of those of the file.
func (m *machine) sectors() (out []byte) {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.dir, "disk"))
	if err != nil || len(b) != size {
		m.t.Fatalf("%d bytes, %v", len(b), err)
	}
	for at := 0; at < size; at += sector {
		if !bytes.Equal(b[at:at+sector], bytes.Repeat(b[at:at+1], sector)) {
			m.t.Errorf("sector %d is torn", at/sector)
		}
		out = append(out, b[at])
	}
	return out
}

// QEMU writes, flushes, and writes again: what was flushed stays, whatever is lost.
func TestCut(t *testing.T) {
	for _, loss := range []Loss{Nothing, Everything, Some} {
		t.Run(loss.String(), func(t *testing.T) {
			m := newMachine(t)
			m.ok("write -P 1 0 512k")
			m.ok("flush")
			for _, at := range []string{"0", "4k", "8k", "12k", "16k", "20k", "24k", "28k"} {
				m.ok("write -P 2 " + at + " 4k")
			}
			m.ok("read -P 2 0 32k")
			m.ok("read -P 1 32k 480k")
			m.cut()
			cached, lost, err := m.d.Cut(loss, rand.New(rand.NewPCG(1, 2)))
			if err != nil || cached != 8 || (lost == 0) != (loss == Nothing) || (lost == 8) != (loss == Everything) {
				t.Errorf("Cut = %d, %d, %v", cached, lost, err)
			}
			ones, twos := 0, 0
			for i, b := range m.sectors() {
				switch {
				case i < 64 && b == 1:
					ones++
				case i < 64 && b == 2:
					twos++
				case i < 1024 && b != 1, i >= 1024 && b != 0:
					t.Fatalf("sector %d is %d", i, b)
				}
			}
			if ones+twos != 64 || (ones == 0) != (loss == Nothing) || (twos == 0) != (loss == Everything) {
				t.Errorf("%d sectors are lost and %d kept of 64", ones, twos)
			}
			// The machine starts again with what it finds.
			m.start()
			m.ok("read -P 1 32k 480k")
			m.ok("write -P 3 0 64k")
			m.ok("flush")
			m.cut()
			if cached, _, err := m.d.Cut(Everything, rand.New(rand.NewPCG(1, 2))); cached != 0 || err != nil {
				t.Errorf("Cut after a flush = %d, %v", cached, err)
			}
			if got := m.sectors()[:128]; !bytes.Equal(got, bytes.Repeat([]byte{3}, 128)) {
				t.Errorf("what was flushed is %v", got)
			}
		})
	}
}

// What is written through the cache is never lost, nor what is more than there is room for.
func TestThrough(t *testing.T) {
	m := newMachine(t)
	m.ok("write -f -P 7 0 64k")
	m.cut()
	if cached, _, err := m.d.Cut(Everything, nil); cached != 0 || err != nil {
		t.Errorf("Cut = %d, %v", cached, err)
	}
	if got := m.sectors()[:128]; !bytes.Equal(got, bytes.Repeat([]byte{7}, 128)) {
		t.Errorf("what was written through is %v", got)
	}
	for range room/size + 1 {
		if err := m.d.write(make([]byte, size), 0, false); err != nil {
			t.Fatal(err)
		}
	}
	if cached, _, err := m.d.Cut(Nothing, nil); cached > 1 || err != nil {
		t.Errorf("%d writes of %d bytes are in a cache of %d, %v", cached, size, room, err)
	}
}

// Who talks nonsense is hung up on; what is past the end is an error.
func TestRefused(t *testing.T) {
	m := newMachine(t)
	for name, said := range map[string][]byte{
		"nothing known":       []byte("GET / HTTP/1.1\r\n\r\n............"),
		"an endless option":   slices.Concat(make([]byte, 4), be.AppendUint64(nil, magicOption), []byte{0, 0, 0, 7, 255, 255, 255, 255}),
		"a huge request":      asked(commandRead, 0, maxLength+1),
		"a write without end": asked(commandWrite, 0, 512),
	} {
		c, err := net.Dial("unix", filepath.Join(m.dir, "nbd"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(said); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
	}
	for _, tt := range []struct {
		at uint64
		n  uint32
	}{{size, 512}, {size - 512, 1024}, {1 << 63, 512}, {math.MaxUint64, 2}} {
		c, err := net.Dial("unix", filepath.Join(m.dir, "nbd"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(asked(commandRead, tt.at, tt.n)); err != nil {
			t.Fatal(err)
		}
		const before = 18 + 20 + 12 + 20 // hello, and two answers
		b := make([]byte, before+16)
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		if got := be.Uint32(b[before+4:]); got != errorInvalid {
			t.Errorf("read of %d bytes at %d: error %d", tt.n, tt.at, got)
		}
		c.Close()
	}
	m.ok("read -P 0 0 4k")
}

// asked is all that a client says that makes one request.
func asked(command uint16, at uint64, n uint32) []byte {
	b := be.AppendUint64(make([]byte, 4), magicOption)
	b = be.AppendUint32(b, optionGo)
	b = be.AppendUint32(b, 0)
	b = be.AppendUint32(b, magicRequest)
	b = be.AppendUint16(b, 0)
	b = be.AppendUint16(b, command)
	b = be.AppendUint64(b, 1)
	b = be.AppendUint64(b, at)
	return be.AppendUint32(b, n)
}
