package server

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"golang.org/x/sys/unix"
)

// A method answers one kind of call.
type method struct {
	id bool // reads Call.ID
	do func(context.Context, *Server, *hostcall.Call, *hostcall.Message) (*os.File, error)
}

var methods = map[hostcall.Method]method{
	hostcall.Host:               {do: hostStatus},
	hostcall.HostTopology:       {do: hostTopology},
	hostcall.HostCheck:          {do: hostCheck},
	hostcall.PCIList:            {do: pciList},
	hostcall.HugepagesList:      {do: hugepagesList},
	hostcall.HugepagesSet:       {do: hugepagesSet},
	hostcall.LinkList:           {do: linkList},
	hostcall.VFsSet:             {do: vfsSet},
	hostcall.ImageCreate:        {id: true, do: imageCreate},
	hostcall.ImageOpen:          {id: true, do: imageOpen},
	hostcall.ImageSeal:          {id: true, do: imageSeal},
	hostcall.ImageDelete:        {id: true, do: imageDelete},
	hostcall.ImageList:          {do: imageList},
	hostcall.GuestCreate:        {id: true, do: guestCreate},
	hostcall.GuestStart:         {id: true, do: guestStart},
	hostcall.GuestPowerButton:   {id: true, do: guestPowerButton},
	hostcall.GuestPause:         {id: true, do: guestPause},
	hostcall.GuestResume:        {id: true, do: guestResume},
	hostcall.GuestReset:         {id: true, do: guestReset},
	hostcall.GuestNMI:           {id: true, do: guestNMI},
	hostcall.GuestResizeDisk:    {id: true, do: guestResizeDisk},
	hostcall.GuestCounters:      {id: true, do: guestCounters},
	hostcall.GuestSetBalloon:    {id: true, do: guestSetBalloon},
	hostcall.GuestSetMemory:     {id: true, do: guestSetMemory},
	hostcall.GuestMemory:        {id: true, do: guestMemory},
	hostcall.GuestBalloon:       {id: true, do: guestBalloon},
	hostcall.GuestSetVCPUs:      {id: true, do: guestSetVCPUs},
	hostcall.GuestVCPUs:         {id: true, do: guestVCPUs},
	hostcall.GuestPlacement:     {id: true, do: guestPlacement},
	hostcall.GuestHistograms:    {id: true, do: guestHistograms},
	hostcall.GuestKill:          {id: true, do: guestKill},
	hostcall.GuestDelete:        {id: true, do: guestDelete},
	hostcall.GuestList:          {do: guestList},
	hostcall.GuestConsole:       {id: true, do: guestConsole},
	hostcall.GuestLog:           {id: true, do: guestLog},
	hostcall.GuestConnect:       {id: true, do: guestConnect},
	hostcall.GuestSetDiskLimits: {id: true, do: guestSetDiskLimits},
	hostcall.GuestSetNICLimits:  {id: true, do: guestSetNICLimits},
	hostcall.GuestSetNICLink:    {id: true, do: guestSetNICLink},
	hostcall.GuestAttachDisk:    {id: true, do: guestAttachDisk},
	hostcall.GuestAttachNIC:     {id: true, do: guestAttachNIC},
	hostcall.GuestAttachDevice:  {id: true, do: guestAttachDevice},
	hostcall.GuestCheckDevices:  {id: true, do: guestCheckDevices},
	hostcall.GuestDetach:        {id: true, do: guestDetach},
	hostcall.GuestDevices:       {id: true, do: guestDevices},
	hostcall.GuestDrop:          {id: true, do: guestDrop},
}

// answer carries out one call of c's.
func (s *Server) answer(ctx context.Context, c *conn, call *hostcall.Call) (hostcall.Message, []*os.File) {
	if call.Method == hostcall.Subscribe {
		c.subscribed.Store(true)
		return hostcall.Message{}, nil
	}
	var m hostcall.Message
	f, err := s.dispatch(ctx, call, &m)
	if err != nil {
		return hostcall.Message{Error: s.refusal(call, err)}, nil
	}
	if f == nil {
		return m, nil
	}
	return m, []*os.File{f}
}

func (s *Server) dispatch(ctx context.Context, call *hostcall.Call, m *hostcall.Message) (*os.File, error) {
	method, ok := methods[call.Method]
	if !ok {
		return nil, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "method",
			Message: fmt.Sprintf("core has no method %.40q: control and core are of different versions.", string(call.Method))}
	}
	if method.id && !hostcall.ValidID(call.ID) {
		return nil, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "id",
			Message: "An identifier is 32 lower-case hexadecimal digits."}
	}
	return method.do(ctx, s, call, m)
}

// refusal makes the answer of an error. What is not meant for the caller goes
// to the log as well.
func (s *Server) refusal(call *hostcall.Call, err error) *hostcall.Error {
	var e *hostcall.Error
	if errors.As(err, &e) {
		return e
	}
	s.Log.Error("call failed", "method", call.Method, "id", call.ID, "error", err)
	text := err.Error()
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return &hostcall.Error{Code: hostcall.ResourceExhausted, Message: "The pool is full: delete images, guests or disks, then try again."}
	case errors.Is(err, unix.EIO), errors.Is(err, unix.EROFS):
		return &hostcall.Error{Code: hostcall.Unavailable, Message: "The host's data disk fails: the host's problems say what to do."}
	}
	return &hostcall.Error{Code: hostcall.Internal, Message: "core failed: " + text[:min(len(text), 400)] + "."}
}

func hostStatus(_ context.Context, s *Server, _ *hostcall.Call, m *hostcall.Message) (*os.File, error) {
	h := s.Host()
	m.Host = &h
	return nil, nil
}

func imageCreate(_ context.Context, s *Server, c *hostcall.Call, m *hostcall.Message) (*os.File, error) {
	s.imageTurns.Lock()
	defer s.imageTurns.Unlock()
	m.Size = c.Size
	return s.Images.Create(c.ID, c.Size)
}

func imageOpen(_ context.Context, s *Server, c *hostcall.Call, m *hostcall.Message) (*os.File, error) {
	s.imageTurns.Lock()
	defer s.imageTurns.Unlock()
	f, _, err := s.Images.Open(c.ID)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open image: %w", err)
	}
	m.Size = info.Size()
	return f, nil
}

func imageSeal(_ context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	s.imageTurns.Lock()
	defer s.imageTurns.Unlock()
	return nil, s.Images.Seal(c.ID)
}

func imageDelete(_ context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	s.imageTurns.Lock()
	defer s.imageTurns.Unlock()
	return nil, s.Images.Delete(c.ID)
}

func imageList(_ context.Context, s *Server, _ *hostcall.Call, m *hostcall.Message) (_ *os.File, err error) {
	m.Images, err = s.Images.List()
	return nil, err
}

func guestCreate(_ context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return nil, s.Guests.Create(c.ID, c.Disks)
}

func guestStart(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	if c.Guest == nil {
		return nil, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "guest", Message: "The call says nothing of the guest to start."}
	}
	// A start once begun is finished or undone, also when control goes away.
	return nil, s.Guests.Start(context.WithoutCancel(ctx), c.ID, c.Guest)
}

func guestPowerButton(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return nil, s.Guests.PowerButton(ctx, c.ID)
}

// guestPause goes on when control goes away: else core would not know that the VMM
// has obeyed. So do guestResume and guestReset.
func guestPause(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return nil, s.Guests.Pause(context.WithoutCancel(ctx), c.ID)
}

func guestResume(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return nil, s.Guests.Resume(context.WithoutCancel(ctx), c.ID)
}

func guestReset(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return nil, s.Guests.Reset(context.WithoutCancel(ctx), c.ID)
}

func guestSetDiskLimits(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return nil, s.Guests.SetDiskLimits(ctx, c.ID, c.Disk, c.Limits)
}

func guestResizeDisk(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return nil, s.Guests.ResizeDisk(context.WithoutCancel(ctx), c.ID, c.Disk, c.Size)
}

func guestSetNICLimits(_ context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return nil, s.Guests.SetNICLimits(c.ID, c.NIC, c.NICLimits)
}

func guestSetNICLink(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return nil, s.Guests.SetNICLink(context.WithoutCancel(ctx), c.ID, c.NIC, c.LinkDown)
}

func guestNMI(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return nil, s.Guests.NMI(ctx, c.ID)
}

func guestCounters(ctx context.Context, s *Server, c *hostcall.Call, m *hostcall.Message) (*os.File, error) {
	counters, err := s.Guests.Counters(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	m.Counters = &counters
	return nil, nil
}

func guestSetBalloon(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return nil, s.Guests.SetBalloon(ctx, c.ID, c.Size)
}

func guestBalloon(ctx context.Context, s *Server, c *hostcall.Call, m *hostcall.Message) (*os.File, error) {
	balloon, err := s.Guests.Balloon(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	m.Balloon = &balloon
	return nil, nil
}

func guestSetVCPUs(ctx context.Context, s *Server, c *hostcall.Call, m *hostcall.Message) (_ *os.File, err error) {
	m.VCPUs, err = s.Guests.SetVCPUs(context.WithoutCancel(ctx), c.ID, c.VCPUs)
	return nil, err
}

func guestVCPUs(ctx context.Context, s *Server, c *hostcall.Call, m *hostcall.Message) (_ *os.File, err error) {
	m.VCPUs, err = s.Guests.VCPUs(ctx, c.ID)
	return nil, err
}

func guestSetMemory(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return nil, s.Guests.SetMemory(context.WithoutCancel(ctx), c.ID, c.Size)
}

func guestMemory(ctx context.Context, s *Server, c *hostcall.Call, m *hostcall.Message) (*os.File, error) {
	memory, err := s.Guests.Memory(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	m.Memory = &memory
	return nil, nil
}

func guestHistograms(ctx context.Context, s *Server, c *hostcall.Call, m *hostcall.Message) (_ *os.File, err error) {
	m.Histograms, err = s.Guests.Histograms(ctx, c.ID)
	return nil, err
}

func guestKill(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return nil, s.Guests.Kill(context.WithoutCancel(ctx), c.ID)
}

func guestDelete(_ context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return nil, s.Guests.Delete(c.ID)
}

func guestList(_ context.Context, s *Server, _ *hostcall.Call, m *hostcall.Message) (_ *os.File, err error) {
	m.Guests, err = s.Guests.List()
	return nil, err
}

func guestConsole(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return s.Guests.Console(ctx, c.ID)
}

func guestConnect(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	if c.SerialPort != "" {
		return s.Guests.ConnectSerial(ctx, c.ID, c.SerialPort)
	}
	return s.Guests.Connect(ctx, c.ID, c.Port)
}

func guestLog(_ context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return s.Guests.Log(c.ID)
}
