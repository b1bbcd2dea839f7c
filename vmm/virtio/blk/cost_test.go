package blk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/eventfd"
	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
)

// Where the driver of BenchmarkRead has its queue and its requests.
const (
	costDesc, costAvail, costUsed = 0x1000, 0x2000, 0x3000
	costHeader, costStatus        = 0x4000, 0x5000
	costData                      = 0x10000
	costMemory                    = 4 << 20
	costDisk                      = 64 << 20
	costBlock                     = 4096
)

// BenchmarkRead has reads of 4 KiB made, past the page cache, by a driver in a process of
// its own, as a guest's is out of this one's sight. It tells what a read costs this
// process: CPU time, and how often one of its threads was put on a CPU.
func BenchmarkRead(b *testing.B) {
	for _, bb := range []struct {
		depth int
		gap   time.Duration // before each
	}{{1, 0}, {1, time.Millisecond}, {1, 20 * time.Millisecond}, {32, 0}} {
		b.Run(fmt.Sprintf("depth=%d,gap=%v", bb.depth, bb.gap), func(b *testing.B) { benchmarkRead(b, bb.depth, bb.gap) })
	}
}

func benchmarkRead(b *testing.B, depth int, gap time.Duration) {
	file, err := memory.Create("cost", costMemory)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	mem, err := memory.Map(file, costMemory)
	if err != nil {
		b.Fatal(err)
	}
	defer mem.Close()
	image, _ := disk(b, costDisk, os.O_RDWR|unix.O_DIRECT)
	dev, err := New(Config{File: image})
	if err != nil {
		b.Fatal(err)
	}
	defer dev.Close()
	call, err := eventfd.New("call", true)
	if err != nil {
		b.Fatal(err)
	}
	defer call.Close()
	if err := dev.Activate(virtio.Activation{
		Features: virtio.FeatureEventIdx, Memory: mem, Broken: func(err error) { b.Error(err) }, ConfigChanged: func() {},
		Queues: []*virtio.Queue{{
			Config:    queue.Config{Size: queueSize, Desc: costDesc, Driver: costAvail, Device: costUsed, EventIdx: true},
			Interrupt: func() { _ = eventfd.Raise(call) },
		}},
	}); err != nil {
		b.Fatal(err)
	}
	defer dev.Deactivate()
	driver := exec.Command("/proc/self/exe")
	driver.Env = []string{fmt.Sprintf("%s=%d %d %d", costDriver, depth, gap, b.N)}
	driver.ExtraFiles = []*os.File{file, dev.queues[0].kick, call}
	driver.Stderr = os.Stderr
	before := threadCosts(b)
	b.ResetTimer()
	if err := driver.Run(); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	after := threadCosts(b)
	b.ReportMetric((after.cpu-before.cpu)/float64(b.N), "cpu-ns/op")
	b.ReportMetric((after.runs-before.runs)/float64(b.N), "runs/op")
}

type costs struct{ cpu, runs float64 }

// threadCosts are those of all threads of this process.
func threadCosts(tb testing.TB) costs {
	tb.Helper()
	names, err := filepath.Glob("/proc/self/task/*/schedstat")
	if err != nil {
		tb.Fatal(err)
	}
	var c costs
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		f := bytes.Fields(text)
		cpu, err1 := strconv.ParseFloat(string(f[0]), 64)
		runs, err2 := strconv.ParseFloat(string(f[2]), 64)
		if err := errors.Join(err1, err2); err != nil {
			tb.Fatal(err)
		}
		c.cpu, c.runs = c.cpu+cpu, c.runs+runs
	}
	return c
}

// costDriver is the variable of the environment that makes a process the driver of
// BenchmarkRead: requests at a time, nanoseconds before each, requests in all.
const costDriver = "BLK_COST_DRIVER"

// drive is that driver. Its files are the memory, the kicks and the interrupts.
func drive(how string) error {
	var depth, gap, n int
	if _, err := fmt.Sscan(how, &depth, &gap, &n); err != nil {
		return err
	}
	mem, err := memory.Map(os.NewFile(3, "memory"), costMemory)
	if err != nil {
		return err
	}
	d := &driver{mem: mem}
	for i := range uint64(depth) {
		d.describe(i)
		d.free = append(d.free, uint16(3*i))
	}
	pause := unix.NsecToTimespec(int64(gap))
	var word [8]byte
	for sent, done := 0, 0; done < n; {
		if gap > 0 {
			if err := unix.Nanosleep(&pause, nil); err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
		}
		for ; len(d.free) > 0 && sent < n; sent++ {
			d.send(uint64(sent))
		}
		if _, err := unix.Write(4, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			return err
		}
		for got := d.reap(); ; got += d.reap() {
			if done += got; got > 0 {
				break
			}
			if _, err := unix.Read(5, word[:]); err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	}
	return d.err
}

type driver struct {
	mem         *memory.Memory
	free        []uint16 // heads
	avail, used uint16
	err         error // the first one
}

func (d *driver) must(err error) {
	if d.err == nil {
		d.err = err
	}
}

// describe writes the chain of request i.
func (d *driver) describe(i uint64) {
	for j, b := range []struct {
		gpa        uint64
		len, flags uint32
	}{{costHeader + 16*i, headerSize, 1}, {costData + costBlock*i, costBlock, 3}, {costStatus + i, 1, 2}} {
		at := costDesc + 16*(3*i+uint64(j))
		d.must(d.mem.Store64(at, b.gpa))
		d.must(d.mem.Store32(at+8, b.len))
		d.must(d.mem.Store32(at+12, b.flags|uint32(3*i+uint64(j)+1)<<16))
	}
}

// send makes a request available, the nth.
func (d *driver) send(n uint64) {
	head := d.free[len(d.free)-1]
	d.free = d.free[:len(d.free)-1]
	sector := n * 2654435761 % (costDisk / costBlock) * (costBlock / SectorSize)
	d.must(d.mem.WriteAt(costHeader+16*uint64(head/3), header(typeIn, sector)))
	d.must(d.mem.Store16(costAvail+4+2*uint64(d.avail%queueSize), head))
	d.avail++
	d.must(d.mem.Store16(costAvail+2, d.avail))
}

// reap takes what is done, and has the next one interrupt.
func (d *driver) reap() (n int) {
	for {
		d.must(d.mem.Store16(costAvail+4+2*queueSize, d.used))
		idx, err := d.mem.Load16(costUsed + 2)
		d.must(err)
		if idx == d.used {
			return n
		}
		id, err := d.mem.Load32(costUsed + 4 + 8*uint64(d.used%queueSize))
		d.must(err)
		if status := make([]byte, 1); d.mem.ReadAt(costStatus+uint64(id/3), status) != nil || status[0] != statusOK {
			d.must(fmt.Errorf("request %d: status %d", id, status[0]))
		}
		d.free = append(d.free, uint16(id))
		d.used++
		n++
	}
}
