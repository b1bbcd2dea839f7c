package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/machine"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
	"github.com/ashlar-hv/ashlar/vmm/timer"
)

// lastWords is how long a response under way may take once the guest has ended.
const lastWords = time.Second

// A server answers core for the life of one guest.
type server struct {
	l      *seqpacket.Listener
	result *os.File

	guest    *machine.Guest
	ticks    *timer.Timer  // every settling, from just before the guest starts
	finished chan struct{} // closed when disks are flushed and the result is written
	busy     sync.Mutex    // held from a request to its response
}

// mark is the jail.Filter.Trace of a program that is built for tests which record what it calls
// (the build tag marked); nil else.
var mark func(jail.Rule) bool

// serve is the whole life of a VMM process.
func serve() error {
	s, err := newServer()
	if err != nil {
		return err
	}
	c, err := s.configured()
	if err != nil {
		s.writeResult(protocol.Result{Reason: protocol.Failed, Message: err.Error()})
		return err
	}
	shrink()
	go s.settle()
	go s.converse(c)
	<-s.guest.Done()
	return s.finish()
}

// settled says after how many ticks of settling a guest's kernel has come up, on a server and on
// machines that are slow or busy: what only that needed is not needed any more.
var settled = []int{1, 3, 12}

const settling = 5 * time.Second

// settle shrinks the VMM when its guest has settled.
func (s *server) settle() {
	defer s.ticks.Close()
	for n := 1; n <= slices.Max(settled); n++ {
		if err := s.ticks.Wait(); err != nil {
			fmt.Fprintln(os.Stderr, "ashlar-vmm:", err)
			return
		}
		if slices.Contains(settled, n) {
			shrink()
		}
	}
}

// shrink gives back the heap that is free, and the pages of the program. Where that cannot
// be, it takes more memory, and that is all.
func shrink() {
	debug.FreeOSMemory()
	if err := dropText(); err != nil {
		fmt.Fprintln(os.Stderr, "ashlar-vmm:", err)
	}
}

func newServer() (*server, error) {
	l, err := seqpacket.Listen(os.NewFile(protocol.ListenFD, "listen"))
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is no listening socket: %w (see ashlar-vmm --help)", protocol.ListenFD, err)
	}
	return &server{l: l, result: os.NewFile(protocol.ResultFD, "result"), finished: make(chan struct{})}, nil
}

// configured waits for Configure, starts the guest and answers. An error has
// been told to core.
func (s *server) configured() (*seqpacket.Conn, error) {
	for {
		c, err := s.l.Accept()
		if err != nil {
			return nil, err
		}
		for {
			var req protocol.Request
			files, err := c.Recv(&req)
			if errors.Is(err, seqpacket.ErrMalformed) || errors.Is(err, seqpacket.ErrTooLarge) {
				continue
			}
			if err != nil {
				c.Close()
				break // the next connection
			}
			resp := protocol.Response{ID: req.ID}
			switch {
			case req.Method == protocol.Configure && req.Spec != nil:
				resp.Error = s.start(req.Spec, files)
			case req.Method == protocol.Query:
				seqpacket.CloseAll(files)
				resp.Status = &protocol.Status{State: protocol.Waiting, PID: os.Getpid()}
			default:
				seqpacket.CloseAll(files)
				resp.Error = precondition("%s before %s", req.Method, protocol.Configure)
			}
			if s.guest != nil {
				st := s.guest.Status()
				resp.Status = &st
			}
			if err := c.Send(resp); err != nil {
				fmt.Fprintln(os.Stderr, "ashlar-vmm:", err)
			}
			if req.Method == protocol.Configure && resp.Error != nil {
				return nil, resp.Error
			}
			if s.guest != nil {
				return c, nil
			}
		}
	}
}

// start makes the guest, gives up privilege, loads the guest and runs it.
func (s *server) start(spec *protocol.Spec, files []*os.File) *protocol.Error {
	// A vCPU in the guest keeps its place in the scheduler for a moment: there
	// has to be another for whoever else is to run.
	runtime.GOMAXPROCS(min(max(spec.VCPUs, 1), machine.MaxVCPUs) + 2)
	g, perr := machine.FromSpec(spec, files)
	if perr != nil {
		return perr
	}
	perr = func() *protocol.Error {
		var err error
		if s.ticks, err = timer.Every(settling); err != nil {
			return &protocol.Error{Code: protocol.Unavailable, Message: err.Error()}
		}
		config := machine.Jail(spec)
		config.Filter.Trace = mark
		if err := jail.Enter(config); err != nil {
			return &protocol.Error{Code: protocol.Unavailable, Message: err.Error()}
		}
		if err := g.Load(); err != nil {
			return err
		}
		if err := g.Start(); err != nil {
			return &protocol.Error{Code: protocol.Internal, Message: err.Error()}
		}
		return nil
	}()
	if perr != nil {
		g.Close()
		return perr
	}
	s.guest = g
	return nil
}

// converse answers requests, one connection after the other, for ever.
func (s *server) converse(c *seqpacket.Conn) {
	for {
		s.answerAll(c)
		c.Close()
		var err error
		if c, err = s.l.Accept(); err != nil {
			// Nobody can reach the guest any more, which goes on all the same.
			fmt.Fprintln(os.Stderr, "ashlar-vmm:", err)
			return
		}
	}
}

// answerAll answers the requests of one connection until it ends.
func (s *server) answerAll(c *seqpacket.Conn) {
	for {
		var req protocol.Request
		files, err := c.Recv(&req)
		if err != nil {
			seqpacket.CloseAll(files)
			return
		}
		if !s.answer(c, req, files) {
			return
		}
	}
}

func (s *server) answer(c *seqpacket.Conn, req protocol.Request, files []*os.File) bool {
	s.busy.Lock()
	defer s.busy.Unlock()
	resp, f := s.handle(req, files)
	resp.ID = req.ID
	if f == nil {
		return c.Send(resp) == nil
	}
	defer f.Close()
	return c.Send(resp, f) == nil
}

func precondition(format string, args ...any) *protocol.Error {
	return &protocol.Error{Code: protocol.FailedPrecondition, Message: fmt.Sprintf(format, args...)}
}

// handle does what a request asks for; f goes with the response. It owns files.
func (s *server) handle(req protocol.Request, files []*os.File) (resp protocol.Response, f *os.File) {
	var err error
	if req.Method != protocol.AttachDisk && req.Method != protocol.AttachNIC && req.Method != protocol.AttachVFIO {
		seqpacket.CloseAll(files)
	}
	switch req.Method {
	case protocol.Query:
	case protocol.PowerButton:
		err = s.guest.PowerButton()
	case protocol.Stop:
		s.guest.Stop()
		<-s.finished
	case protocol.ResetMethod:
		if err = s.guest.Reset(); err == nil {
			<-s.finished
		}
	case protocol.NMI:
		err = s.guest.NMI()
	case protocol.Pause:
		err = s.guest.Pause()
	case protocol.Resume:
		err = s.guest.Resume()
	case protocol.SetBalloon:
		resp.Error = s.guest.SetBalloon(req.BalloonBytes)
	case protocol.BalloonMethod:
		b := s.guest.Balloon()
		resp.Balloon = &b
	case protocol.SetMemory:
		resp.Error = s.guest.SetMemory(req.PluggedBytes)
	case protocol.MemoryMethod:
		m := s.guest.MemoryState()
		resp.Memory = &m
	case protocol.SetDiskLimits:
		resp.Error = s.guest.SetDiskLimits(req.Disk, req.Limits)
	case protocol.ResizeDisk:
		resp.Error = s.guest.ResizeDisk(req.Disk, req.Size)
	case protocol.SetLink:
		resp.Error = s.guest.SetLink(req.NIC, !req.LinkDown)
	case protocol.SetVCPUs:
		resp.Error = s.guest.SetVCPUs(req.VCPUs)
	case protocol.AttachDisk:
		resp.Error = s.guest.AttachDisk(req.NewDisk, files)
	case protocol.AttachNIC:
		resp.Error = s.guest.AttachNIC(req.NewNIC, files)
	case protocol.AttachVFIO:
		resp.Error = s.guest.AttachVFIO(req.NewVFIO, files)
	case protocol.Detach:
		resp.Error = s.guest.Detach(req.Device, req.Force)
	case protocol.Console:
		f, err = s.guest.Hub.Attach()
	case protocol.ConnectPort:
		f, resp.Error = s.guest.ConnectPort(req.PortName)
	case protocol.CountersMethod:
		c := s.guest.Counters()
		resp.Counters = &c
		return resp, nil
	case protocol.HistogramsMethod:
		resp.Histograms = s.guest.Histograms()
		return resp, nil
	case protocol.Configure:
		err = errors.New("the guest has been configured already")
	default:
		resp.Error = &protocol.Error{Code: protocol.InvalidArgument, Message: fmt.Sprintf("unknown method %q", req.Method)}
	}
	if err != nil {
		resp.Error = precondition("%v", err)
	}
	st := s.guest.Status()
	resp.Status = &st
	return resp, f
}

// finish flushes the disks, writes the result and lets a last response out.
func (s *server) finish() error {
	res := s.guest.Result()
	if err := s.guest.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "ashlar-vmm:", err)
		if res.Message == "" {
			res.Message = err.Error()
		}
	}
	s.writeResult(res)
	close(s.finished)
	quiet := make(chan struct{})
	go func() {
		s.busy.Lock()
		close(quiet)
	}()
	select {
	case <-quiet:
	case <-time.After(lastWords):
	}
	return nil
}

// writeResult tells core, also one that is started later, how it ended.
func (s *server) writeResult(res protocol.Result) {
	b, err := json.Marshal(res)
	if err == nil {
		_, err = s.result.Write(b)
	}
	if err == nil {
		err = s.result.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ashlar-vmm: write result:", err)
	}
}
