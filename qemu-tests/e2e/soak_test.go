package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// A soak is repeated by its seed: what is done, to whom, and the pauses between follow from it.
// What the machines make of them takes the time that it takes.
var (
	soakSeed  = flag.Uint64("soak-seed", 0, "what the faults follow from; 0: another one each time")
	soakFull  = flag.Bool("soak-full", false, "as many faults as make soak has, not the few of make test")
	soakCount = flag.Int("soak-count", 0, "how many faults instead of those")
	soakTime  = flag.Duration("soak-time", 0, "how long at most; 0: until all faults have been")
)

// A soak is a run of faults.
type soak struct {
	t     *testing.T
	rng   *rand.Rand
	seed  uint64
	count int
	begin time.Time
	end   time.Time
	step  int
}

// newSoak begins a run of a few faults, or of all where that is asked for.
func newSoak(t *testing.T, few, all int) *soak {
	s := &soak{t: t, seed: *soakSeed, count: few, begin: time.Now()}
	if *soakFull {
		s.count = all
	}
	if s.seed == 0 {
		s.seed = rand.Uint64()
	}
	if *soakCount > 0 {
		s.count = *soakCount
	}
	if *soakTime > 0 {
		s.end = time.Now().Add(*soakTime)
	}
	s.rng = rand.New(rand.NewPCG(s.seed, 1))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("failed at step %d of %d: make soak SEED=%d COUNT=%d SOAK=%s repeats it", s.step, s.count, s.seed, s.step, t.Name())
		}
	})
	t.Logf("seed %d, %d faults", s.seed, s.count)
	return s
}

// next begins the next step, and is false after the last.
func (s *soak) next() bool {
	if s.t.Failed() || s.step == s.count || !s.end.IsZero() && time.Now().After(s.end) {
		return false
	}
	s.step++
	if s.step%10 == 0 {
		s.t.Logf("%d of %d after %v", s.step, s.count, time.Since(s.begin).Round(time.Second))
	}
	return true
}

// pause waits for a random time.
func (s *soak) pause(most time.Duration) { time.Sleep(time.Duration(s.rng.Int64N(int64(most)))) }

// A witness remembers what a guest that runs `log` has acknowledged, over all the
// streams of its console.
type witness struct {
	h  *host
	id string

	mu      sync.Mutex
	highest int
	lines   []string // that are no acknowledgements, the last few
	wrong   []string
}

// witness follows the console of a guest, which has acknowledged so many writes before, until
// ctx ends.
func (h *host) witness(ctx context.Context, id string, acknowledged int) *witness {
	w := &witness{h: h, id: id, highest: acknowledged}
	go func() {
		for ctx.Err() == nil {
			w.follow(ctx)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	return w
}

// follow reads one stream to its end. It begins with what the guest has printed before.
func (w *witness) follow(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := w.h.VirtualMachines.Console(ctx)
	if stream.Send(&v1.ConsoleRequest{Name: "virtualMachines/" + w.id}) != nil {
		return
	}
	rest, before := "", 0
	for {
		r, err := stream.Receive()
		if err != nil {
			return
		}
		rest += string(r.Output)
		for {
			line, after, ok := strings.Cut(rest, "\n")
			if !ok {
				break
			}
			rest, before = after, w.line(strings.TrimSpace(line), before)
		}
		if r.Ended != nil {
			return
		}
	}
}

// line takes one line after the acknowledgement before, and returns the last of them.
func (w *witness) line(line string, before int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := strings.CutPrefix(line, "ACK ")
	n, err := strconv.Atoi(s)
	if !ok || err != nil {
		w.lines = append(w.lines[max(0, len(w.lines)-20):], line)
		return before
	}
	if before != 0 && n != before+1 {
		w.wrong = append(w.wrong, fmt.Sprintf("after write %d comes write %d", before, n))
	}
	w.highest = max(w.highest, n)
	return n
}

// acknowledged is the highest write that the guest has acknowledged.
func (w *witness) acknowledged() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.highest
}

// goesOn waits until the guest has acknowledged n writes more: none is lost.
func (w *witness) goesOn(t testing.TB, n int) {
	t.Helper()
	from := w.acknowledged()
	for deadline := time.Now().Add(patience); w.acknowledged() < from+n; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.hangs(t)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.wrong) > 0 {
		t.Errorf("%s: %s", w.id, strings.Join(w.wrong, "; "))
	}
}

// hangs fails, and shows what is known of a guest that does not go on: whether it still runs and
// writes, and what the host's kernel says.
func (w *witness) hangs(t testing.TB) {
	t.Helper()
	for range 2 {
		t.Logf("counters of %s: %v", w.id, w.h.counters(t, w.id))
		time.Sleep(5 * time.Second)
	}
	t.Logf("the host:\n%s", w.h.shell(t, "cat /proc/uptime /sys/devices/system/clocksource/clocksource0/current_clocksource; dmesg | tail -n 30"))
	w.mu.Lock()
	defer w.mu.Unlock()
	t.Fatalf("%s: acknowledged %d writes and hangs; it said %q", w.id, w.highest, w.lines)
}

// logs starts `log` on the first disk of a guest that has just been started, which must
// hold all that was acknowledged.
func (h *host) logs(t testing.TB, w *witness) {
	t.Helper()
	c := h.console(t, w.id)
	c.expect("TESTGUEST ready", patience)
	got, err := strconv.Atoi(c.ask("last /dev/vda"))
	if err != nil {
		t.Fatal(err)
	}
	if acknowledged := w.acknowledged(); got < acknowledged {
		t.Errorf("%s has acknowledged write %d, its disk holds %d", w.id, acknowledged, got)
	}
	c.say("log /dev/vda")
	w.goesOn(t, 5)
}

// A mess is what others leave behind: it asks for virtual machines and images and does
// away with them, without end, while the host's programs die. It knows what was promised.
type mess struct {
	turn  sync.Mutex // held while it does something
	h     *host
	rng   *rand.Rand
	n     int
	ready map[string]string // images by identifier: uploaded, checked, and not to be deleted
	vms   map[string]bool   // virtual machines that were created, and not to be deleted
	gone  map[string]bool   // names of what was deleted
	done  int
	err   error
}

func newMess(h *host, seed uint64) *mess {
	return &mess{h: h, rng: rand.New(rand.NewPCG(seed, 2)), ready: map[string]string{}, vms: map[string]bool{}, gone: map[string]bool{}}
}

// work goes on until stop is closed, or what was promised is not kept. A ctx that ends
// cuts it off.
func (m *mess) work(ctx context.Context, stop <-chan struct{}) {
	for m.err == nil && ctx.Err() == nil {
		select {
		case <-stop:
			return
		default:
		}
		m.turn.Lock()
		m.n++
		if m.rng.IntN(3) == 0 {
			m.err = m.image(ctx)
		} else {
			m.err = m.machine(ctx)
		}
		m.done++
		m.turn.Unlock()
	}
}

// passing are errors of a host whose programs come back.
var passing = []connect.Code{connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeUnknown, connect.CodeInternal, connect.CodeCanceled, connect.CodeAborted}

// again makes a call until it is answered.
func again[T any](ctx context.Context, what string, f func(ctx context.Context) (T, error)) (out T, err error) {
	for deadline := time.Now().Add(patience); ; {
		call, cancel := context.WithTimeout(ctx, time.Minute)
		out, err = f(call)
		cancel()
		if err == nil || !slices.Contains(passing, connect.CodeOf(err)) || ctx.Err() != nil {
			return out, err
		}
		if time.Now().After(deadline) {
			return out, fmt.Errorf("%s is not answered: %w", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// ended waits for the end of an operation, which must come, and returns it.
func (m *mess) ended(ctx context.Context, what string, ask func(ctx context.Context) (*connect.Response[v1.Operation], error)) (*v1.Operation, error) {
	op, err := again(ctx, what, ask)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	for deadline := time.Now().Add(patience); !op.Msg.Done; {
		name := op.Msg.Name
		if op, err = again(ctx, "wait for "+what, func(ctx context.Context) (*connect.Response[v1.Operation], error) {
			return m.h.Operations.WaitOperation(ctx, connect.NewRequest(&v1.WaitOperationRequest{Name: name}))
		}); err != nil {
			return nil, fmt.Errorf("wait for %s: %w", what, err)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s does not end: %v", what, op.Msg)
		}
	}
	return op.Msg, nil
}

// requestID is a UUID that follows from the seed.
func (m *mess) requestID() string {
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", m.rng.Uint32(), m.rng.Uint64()&(1<<48-1))
}

// machine makes a virtual machine, mostly starts it, and mostly deletes it.
func (m *mess) machine(ctx context.Context) error {
	id := fmt.Sprintf("mess-%d", m.n)
	name := "virtualMachines/" + id
	vm := testVM("", &v1.Disk{SizeBytes: int64(1+m.rng.IntN(8)) << 20})
	vm.MemoryBytes = 64 << 20
	start, remove := m.rng.IntN(3) > 0, m.rng.IntN(4) > 0
	wait := time.Duration(m.rng.Int64N(int64(time.Second)))
	request := m.requestID()
	_, err := again(ctx, "create "+id, func(ctx context.Context) (*connect.Response[v1.VirtualMachine], error) {
		return m.h.VirtualMachines.CreateVirtualMachine(ctx, connect.NewRequest(&v1.CreateVirtualMachineRequest{VirtualMachineId: id, VirtualMachine: vm, RequestId: request}))
	})
	if err != nil {
		return fmt.Errorf("create %s: %w", id, err)
	}
	m.vms[id] = true
	if start {
		request := m.requestID()
		if _, err := m.ended(ctx, "start of "+id, func(ctx context.Context) (*connect.Response[v1.Operation], error) {
			return m.h.VirtualMachines.StartVirtualMachine(ctx, connect.NewRequest(&v1.StartVirtualMachineRequest{Name: name, RequestId: request}))
		}); err != nil {
			return err // that it has failed is no wonder where its VMM, or core, died
		}
		time.Sleep(wait)
		request = m.requestID()
		if _, err := m.ended(ctx, "stop of "+id, func(ctx context.Context) (*connect.Response[v1.Operation], error) {
			return m.h.VirtualMachines.StopVirtualMachine(ctx, connect.NewRequest(&v1.StopVirtualMachineRequest{Name: name, Force: true, RequestId: request}))
		}); err != nil && connect.CodeOf(err) != connect.CodeFailedPrecondition { // it has stopped already
			return err
		}
	}
	if len(m.vms) > 3 || remove {
		return m.deleteMachine(ctx, id)
	}
	return nil
}

// deleteMachine deletes a virtual machine, which must succeed in the end.
func (m *mess) deleteMachine(ctx context.Context, id string) error {
	name := "virtualMachines/" + id
	delete(m.vms, id)
	for try := range 20 {
		request := m.requestID()
		op, err := m.ended(ctx, "delete "+id, func(ctx context.Context) (*connect.Response[v1.Operation], error) {
			return m.h.VirtualMachines.DeleteVirtualMachine(ctx, connect.NewRequest(&v1.DeleteVirtualMachineRequest{Name: name, Force: true, RequestId: request}))
		})
		switch {
		case connect.CodeOf(err) == connect.CodeNotFound && try > 0: // the one before has done it after all
		case err != nil:
			return err
		case op.Error != nil:
			continue
		}
		m.gone[name] = true
		return nil
	}
	return fmt.Errorf("%s cannot be deleted", id)
}

// image uploads an image, and mostly deletes it.
func (m *mess) image(ctx context.Context) error {
	id := fmt.Sprintf("mess-%d", m.n)
	content := make([]byte, 1<<20+m.rng.IntN(2<<20))
	for i := 0; i < len(content); i += 64 {
		content[i] = byte(m.rng.Uint32())
	}
	digest := sha256.Sum256(content)
	sum := hex.EncodeToString(digest[:])
	_, err := again(ctx, "create image "+id, func(ctx context.Context) (*connect.Response[v1.Image], error) {
		return m.h.Images.CreateImage(ctx, connect.NewRequest(&v1.CreateImageRequest{ImageId: id, Image: &v1.Image{SizeBytes: int64(len(content)), Sha256: sum}}))
	})
	if err != nil {
		return fmt.Errorf("create image %s: %w", id, err)
	}
	if _, err := again(ctx, "upload "+id, func(ctx context.Context) (*v1.Image, error) { return m.upload(ctx, id, content) }); err != nil {
		return fmt.Errorf("upload %s: %w", id, err)
	}
	m.ready[id] = sum
	if len(m.ready) > 3 || m.rng.IntN(4) > 0 {
		return m.deleteImage(ctx, id)
	}
	return nil
}

// upload goes on where the host is.
func (m *mess) upload(ctx context.Context, id string, content []byte) (*v1.Image, error) {
	i, err := m.h.Images.GetImage(ctx, connect.NewRequest(&v1.GetImageRequest{Name: "images/" + id}))
	if err != nil || i.Msg.State == v1.Image_STATE_READY {
		return nil, err
	}
	done, err := m.h.send(ctx, "images/"+id, content, i.Msg.UploadedBytes)
	if err == nil && done.State != v1.Image_STATE_READY {
		err = connect.NewError(connect.CodeUnavailable, errors.New("the upload ended before the image was whole"))
	}
	if connect.CodeOf(err) == connect.CodeFailedPrecondition { // the call before is still at it, or was done
		err = connect.NewError(connect.CodeUnavailable, err)
	}
	return done, err
}

func (m *mess) deleteImage(ctx context.Context, id string) error {
	delete(m.ready, id)
	_, err := again(ctx, "delete image "+id, func(ctx context.Context) (*connect.Response[v1.DeleteImageResponse], error) {
		return m.h.Images.DeleteImage(ctx, connect.NewRequest(&v1.DeleteImageRequest{Name: "images/" + id}))
	})
	if err != nil && connect.CodeOf(err) != connect.CodeNotFound {
		return fmt.Errorf("delete image %s: %w", id, err)
	}
	m.gone["images/"+id] = true
	return nil
}

// kept sees that the host has what was promised, and not what was deleted.
func (m *mess) kept(t testing.TB) {
	t.Helper()
	ctx := within(t, patience)
	for id, sum := range m.ready {
		i, err := m.h.Images.GetImage(ctx, connect.NewRequest(&v1.GetImageRequest{Name: "images/" + id}))
		if err != nil || i.Msg.State != v1.Image_STATE_READY || i.Msg.Sha256 != sum {
			t.Errorf("image %s, which was ready: %v, %v", id, i, err)
		}
	}
	for id := range m.vms {
		if _, err := m.h.VirtualMachines.GetVirtualMachine(ctx, connect.NewRequest(&v1.GetVirtualMachineRequest{Name: "virtualMachines/" + id})); err != nil {
			t.Errorf("virtual machine %s, which was created: %v", id, err)
		}
	}
	var back []string
	for _, name := range slices.Sorted(maps.Keys(m.gone)) {
		var err error
		if strings.HasPrefix(name, "images/") {
			_, err = m.h.Images.GetImage(ctx, connect.NewRequest(&v1.GetImageRequest{Name: name}))
		} else {
			_, err = m.h.VirtualMachines.GetVirtualMachine(ctx, connect.NewRequest(&v1.GetVirtualMachineRequest{Name: name}))
		}
		if connect.CodeOf(err) != connect.CodeNotFound {
			back = append(back, fmt.Sprintf("%s (%v)", name, err))
		}
	}
	if len(back) > 0 {
		t.Errorf("there after they were deleted: %s", strings.Join(back, ", "))
	}
	clear(m.gone)
}
