package virtiotest

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
)

// A Subject is a device that Conform tests, newly plugged.
type Subject struct {
	*Driver
	Queue  int   // takes what Request makes
	Others []int // are enabled with it
	// Request makes a request that the device does at once.
	Request func() (readable, writable []Buf)
	// Used is told how many bytes the device says to have written for one.
	Used func(n uint32)
}

// Conform tests what holds for every device: negotiation of features, sizes of queues,
// resets under load, and notifications that are lost, doubled or too early. accept is
// what the driver accepts of what is offered.
func Conform(t *testing.T, accept virtio.Features, plug func(testing.TB) *Subject) {
	for name, test := range map[string]func(*testing.T, virtio.Features, *Subject){
		"features":          conformFeatures,
		"queue sizes":       conformSizes,
		"bad queue sizes":   conformBadSizes,
		"reset while busy":  conformReset,
		"pause while busy":  conformPause,
		"before DRIVER_OK":  conformEarly,
		"doubled kicks":     conformDoubled,
		"lost kicks":        conformLost,
		"kicks while reset": conformKickedInReset,
	} {
		t.Run(name, func(t *testing.T) { test(t, accept, plug(t)) })
	}
}

// ring programs the subject's queues, f negotiated, and returns that of its requests.
func (s *Subject) ring(size uint16, f virtio.Features) *Ring {
	for _, i := range s.Others {
		s.Driver.Queue(i, 16, f)
	}
	return s.Driver.Queue(s.Queue, size, f)
}

// rewind resets the device and gives back the memory from base on.
func (s *Subject) rewind(base uint64) {
	s.M.T.Helper()
	s.Reset()
	s.M.Must(s.M.Mem.Zero(base, s.M.next-base))
	s.M.next = base
}

// begin is a new life of the device, up to DRIVER_OK.
func (s *Subject) begin(size uint16, accept virtio.Features) *Ring {
	s.M.T.Helper()
	r := s.ring(size, s.Negotiate(accept))
	s.Start()
	return r
}

// add makes a request available, indirectly where it has more buffers than the ring has
// entries.
func (s *Subject) add(r *Ring) {
	s.M.T.Helper()
	readable, writable := s.Request()
	if len(readable)+len(writable) > int(r.Size) {
		r.AddIndirect(readable, writable)
		return
	}
	r.Add(readable, writable)
}

// wait waits for n requests.
func (s *Subject) wait(r *Ring, n int) {
	s.M.T.Helper()
	for range n {
		_, used := r.Wait()
		s.Used(used)
	}
}

// works does n requests, one after the other.
func (s *Subject) works(r *Ring, n int) {
	s.M.T.Helper()
	for range n {
		s.add(r)
		r.Kick()
		s.wait(r, 1)
	}
}

// nothingMore sees that the device uses nothing that it has used already: what it does
// next is what was asked of it last.
func (s *Subject) nothingMore(r *Ring) {
	s.M.T.Helper()
	if head, n, ok := r.Done(); ok {
		s.M.T.Fatalf("chain %d (%d bytes) was used twice", head, n)
	}
}

// fit is how many requests fit into the ring at a time.
func (s *Subject) fit(r *Ring) int {
	next := s.M.next
	readable, writable := s.Request()
	s.M.next = next
	return max(1, int(r.Size)/(len(readable)+len(writable)))
}

// maxSize is the largest size of the queue.
func (s *Subject) maxSize() uint16 {
	s.Reset()
	s.SetCommon(QueueSelect, 2, uint64(s.Queue))
	return uint16(s.Common(QueueSize, 2))
}

// conformFeatures accepts every feature by itself, and all but it; and one that is not
// offered, beside those that are (sections 2.2 and 3.1.1).
func conformFeatures(t *testing.T, accept virtio.Features, s *Subject) {
	s.Reset()
	offered := s.Offered()
	if !offered.Has(virtio.FeatureVersion1) {
		t.Fatalf("offered features %#x lack VIRTIO_F_VERSION_1", offered)
	}
	const all = ^virtio.Features(0)
	always := virtio.FeatureVersion1 | offered&accept&virtio.FeatureRingPacked
	base := s.M.next
	for bit := virtio.Features(1); bit != 0; bit <<= 1 {
		s.rewind(base)
		if !offered.Has(bit) {
			if s.Accept(offered | bit) {
				t.Errorf("feature %#x was accepted, which is not offered", bit)
			}
			continue
		}
		for _, f := range []virtio.Features{always | bit, offered & accept &^ bit} {
			s.rewind(base)
			if want := f.Has(virtio.FeatureVersion1); s.Accept(f) != want {
				t.Fatalf("of features %#x these were accepted: %v, want %v: %#x", offered, !want, want, f)
			} else if !want {
				continue
			}
			s.SetCommon(ConfigVector, 2, 0)
			r := s.ring(8, f)
			s.Start()
			s.works(r, 2)
		}
	}
	s.Reset()
	if s.Offered() != offered || s.Accept(all) {
		t.Errorf("after the resets %#x is offered, all is accepted; want %#x, and not", s.Offered(), offered)
	}
}

// conformSizes goes round queues of every allowed size (sections 2.7 and 2.8.10.1).
func conformSizes(t *testing.T, accept virtio.Features, s *Subject) {
	base := s.M.next
	sizes := []uint16{1, 2, 4, s.maxSize() / 2, s.maxSize()}
	if s.Negotiate(accept).Has(virtio.FeatureRingPacked) {
		sizes = append(sizes, 3, 5, s.maxSize()-1)
	}
	for _, size := range sizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			defer func(outer testing.TB) { s.M.T = outer }(s.M.T)
			s.M.T = t
			s.rewind(base)
			if !s.Negotiate(accept).Has(virtio.FeatureIndirectDesc) {
				size = max(size, 2)
			}
			r := s.begin(size, accept)
			n := s.fit(r)
			for range 3 { // full, and round
				for range n {
					s.add(r)
				}
				r.Kick()
				s.wait(r, n)
			}
			s.works(r, 3)
			s.nothingMore(r)
		})
	}
}

// conformBadSizes has the device refuse sizes that it does not allow, and work after that.
func conformBadSizes(t *testing.T, accept virtio.Features, s *Subject) {
	sizes := []uint16{0, 2 * s.maxSize(), s.maxSize() + 1, 1<<16 - 1}
	if !s.Negotiate(accept).Has(virtio.FeatureRingPacked) {
		sizes = append(sizes, 3, 5, s.maxSize()-1)
	}
	base := s.M.next
	for _, size := range sizes {
		s.rewind(base)
		f := s.Negotiate(accept)
		r := s.NewRing(s.Queue, 8, f)
		r.Size = size
		r.Program()
		s.AddStatus(virtio.DriverOK)
		s.WaitBroken()
		s.works(s.begin(8, accept), 2)
	}
}

// conformReset resets the device with as many requests as it takes: it writes nothing to
// the memory of its last life, and works in the next (section 2.4.1).
func conformReset(t *testing.T, accept virtio.Features, s *Subject) {
	base := s.M.next
	for round := range 20 {
		s.rewind(base)
		r := s.begin(32, accept)
		for range s.fit(r) {
			s.add(r)
		}
		r.Kick()
		if round%2 == 1 {
			s.wait(r, 1)
		}
		s.Reset()
		old := Buf{base, uint32(s.M.next - base)}
		before := s.M.Bytes(old)
		s.works(s.begin(8, accept), 2)
		if !bytes.Equal(s.M.Bytes(old), before) {
			t.Fatalf("round %d: memory was written after a reset", round)
		}
	}
}

// conformPause pauses the device under load: nothing is lost, nothing done twice.
func conformPause(t *testing.T, accept virtio.Features, s *Subject) {
	base := s.M.next
	for range 10 {
		s.rewind(base)
		r := s.begin(32, accept)
		n := s.fit(r)
		for range n {
			s.add(r)
		}
		r.Kick()
		s.Transport.Pause()
		state := s.Transport.Save()
		s.M.Must(s.Transport.Restore(state))
		s.Transport.Resume()
		s.wait(r, n)
		s.works(r, 2)
		s.nothingMore(r)
	}
}

// conformEarly makes buffers available and kicks before DRIVER_OK: nothing is used before
// it (section 3.1.1), and after it all, without another kick.
func conformEarly(t *testing.T, accept virtio.Features, s *Subject) {
	for _, kicks := range []int{0, 1, 3} {
		r := s.ring(8, s.Negotiate(accept))
		s.add(r)
		for range kicks {
			r.Kick()
		}
		if _, _, ok := r.Done(); ok {
			t.Fatal("a chain was used before DRIVER_OK")
		}
		s.Start()
		s.wait(r, 1)
		s.nothingMore(r)
		s.works(r, 10)
	}
}

// conformDoubled kicks for nothing, and too often.
func conformDoubled(t *testing.T, accept virtio.Features, s *Subject) {
	r := s.begin(8, accept)
	for i := range 50 {
		for range i % 5 {
			r.Kick()
		}
		s.add(r)
		for range 1 + i%7 {
			r.Kick()
		}
		s.wait(r, 1)
		for range i % 3 {
			r.Kick()
		}
	}
	s.works(r, 1)
	s.nothingMore(r)
}

// conformLost makes buffers available without a kick: the device sees them with the next
// kick, or when it goes on after a pause.
func conformLost(t *testing.T, accept virtio.Features, s *Subject) {
	r := s.begin(16, accept)
	n := s.fit(r)
	for i := range 20 {
		for range n {
			s.add(r)
		}
		if i%2 == 0 {
			r.Kick()
		} else {
			s.Transport.Pause()
			s.Transport.Resume()
		}
		s.wait(r, n)
	}
	s.nothingMore(r)
}

// conformKickedInReset kicks a device that is reset and has no queue, and queues that
// nobody has enabled.
func conformKickedInReset(t *testing.T, accept virtio.Features, s *Subject) {
	for range 5 {
		r := s.begin(8, accept)
		s.works(r, 1)
		s.Reset()
		for i := range s.Common(NumQueues, 2) {
			s.SetCommon(QueueSelect, 2, i)
			s.Write(s.notify+s.multiplier*s.Common(QueueNotifyOff, 2), 2, i)
		}
		if st := s.Status(); st != 0 {
			t.Fatalf("status %#x after kicks in reset, want 0", st)
		}
	}
	s.works(s.begin(8, accept), 3)
}
