package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/initramfs/console"
	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/initramfs/process"
	"github.com/ashlar-hv/ashlar/initramfs/room"
	"github.com/ashlar-hv/ashlar/initramfs/step"
	"github.com/ashlar-hv/ashlar/vmm/jail"
)

// roomStage is the folder on which control's room is built.
const roomStage = layout.RunDir + "/room"

// controlRoom is the control domain's room.
var controlRoom = room.Room{
	Stage:   roomStage,
	Program: layout.ControlBinary,
	Binds: []room.Bind{
		{Source: layout.ControlDir, Target: layout.ControlStateDir, Writable: true},
		{Source: layout.CoreDir, Target: layout.ControlCoreDir},
	},
	UID:   layout.ControlUID,
	Files: layout.ControlSettingsFD + 1,
}

func (m *machine) service(name string, start func() (*process.Process, error)) *process.Service {
	s := &process.Service{
		Name: name,
		Start: func() (*process.Process, error) {
			if m.goingDown() {
				return nil, errors.New("the machine goes down")
			}
			return start()
		},
		Report: func(message string) {
			if !m.goingDown() {
				m.log.Printf("init", "%s", message)
			}
		},
		Backoff: process.Backoff{First: firstRetry, Limit: lastRetry, Reset: goodRun},
	}
	m.spawn(name, s.Run)
	return s
}

// startCore starts core and waits for its socket.
func (m *machine) startCore(ctx context.Context) (step.Outcome, error) {
	for _, d := range []struct {
		path string
		mode os.FileMode
		gid  int
	}{
		{layout.RunDir, 0o755, 0},                  // control is nobody's root when it enters its room
		{layout.CoreDir, 0o750, layout.ControlUID}, // control may reach the socket in it
		{layout.GuestRunDir, 0o711, 0},
		{roomStage, 0o700, 0},
	} {
		if err := errors.Join(os.MkdirAll(d.path, d.mode), os.Chown(d.path, 0, d.gid), os.Chmod(d.path, d.mode)); err != nil {
			return step.Outcome{}, err
		}
	}
	if _, err := os.Stat(layout.CoreBinary); err != nil {
		return step.Outcome{}, fmt.Errorf("the image has no core: %w", err)
	}
	s := m.service("core", func() (*process.Process, error) { return m.startCoreProgram() })
	o := step.Outcome{Message: "started", Record: func() { m.keep(&m.core, s) }}
	for {
		if f, err := os.Stat(layout.CoreSocket); err == nil && f.Mode()&os.ModeSocket != 0 {
			return o, nil
		}
		select {
		case <-ctx.Done():
			return o, errors.New("core does not open its socket: its messages are in the kernel's log")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// startCoreProgram starts core's program once.
func (m *machine) startCoreProgram(args ...string) (*process.Process, error) {
	return m.startDaemon("ashlar-core: ", layout.CoreCgroup, layout.CoreBinary, append([]string{"ashlar-core"}, args...), &syscall.SysProcAttr{Setsid: true}, nil)
}

// startControl opens the API's socket and starts control. The socket stays open
// in init, so that clients wait, and are not refused, while control starts anew.
func (m *machine) startControl(ctx context.Context) (step.Outcome, error) {
	listener, err := listen(ctx, m.doc.API.Port)
	if err != nil {
		return step.Outcome{}, err
	}
	if _, err := os.Stat(layout.ControlBinary); err != nil {
		return step.Outcome{}, fmt.Errorf("the image has no control: %w", err)
	}
	settings, err := json.Marshal(layout.ControlSettings{
		Hostname: m.doc.Hostname, Version: version,
		ClientCA: m.identity.clientCA, Certificate: m.identity.certificate, Key: m.identity.key,
	})
	if err != nil {
		return step.Outcome{}, err
	}
	s := m.service("control", func() (*process.Process, error) {
		sealed, err := sealedFile("control-settings", settings)
		if err != nil {
			return nil, err
		}
		defer sealed.Close()
		return m.startDaemon("ashlar-control: ", layout.ControlCgroup, ownPath,
			[]string{helperName, "room-control"}, jail.Attributes(layout.ControlUID, layout.ControlUID), []*os.File{listener, sealed})
	})
	return step.Outcome{Message: "started", Record: func() {
		m.listener = listener
		m.keep(&m.control, s)
	}}, nil
}

// startDaemon starts a program as attr says in a cgroup, with an empty environment, its
// standard error to the kernel's log and extra descriptors from 3 on.
func (m *machine) startDaemon(prefix, cgroup, path string, argv []string, attr *syscall.SysProcAttr, extra []*os.File) (*process.Process, error) {
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	group, err := os.Open(cgroup)
	if err != nil {
		return nil, err
	}
	defer group.Close()
	logEnd, err := m.logPipe(prefix)
	if err != nil {
		return nil, err
	}
	defer logEnd.Close()
	files := []uintptr{null.Fd(), null.Fd(), logEnd.Fd()}
	for _, f := range extra {
		files = append(files, f.Fd())
	}
	attr.UseCgroupFD, attr.CgroupFD = true, int(group.Fd())
	return m.reaper.Start(path, argv, &syscall.ProcAttr{Dir: "/", Files: files, Sys: attr})
}

// listen opens the API's socket, for IPv4 and IPv6.
func listen(ctx context.Context, port int) (*os.File, error) {
	var c net.ListenConfig
	c.SetMultipathTCP(false) // one path into the host, and Landlock knows only plain TCP
	l, err := c.Listen(ctx, "tcp", ":"+strconv.Itoa(port))
	if err != nil {
		return nil, fmt.Errorf("open the API's port: %w", err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, fmt.Errorf("open the API's port: %w", err)
	}
	return f, nil
}

// sealedFile returns a file in memory that nobody can change any more.
func sealedFile(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if err != nil {
		return nil, fmt.Errorf("make memfd %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err = f.Write(content); err == nil {
		_, err = f.Seek(0, 0)
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("fill memfd %s: %w", name, err)
	}
	return f, nil
}

// waitForAPI waits until control answers, and notes when that was.
func (m *machine) waitForAPI(ctx context.Context) (step.Outcome, error) {
	if _, control := m.services(); control == nil {
		return step.Outcome{}, errors.New("nobody answers on its port: control was not started")
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(m.doc.API.Port))
	p, out, err := m.startHelper(layout.NTPClientUID, nil, "probe-api", address)
	if err != nil {
		return step.Outcome{}, err
	}
	defer out.Close()
	select {
	case <-p.Done():
	case <-ctx.Done():
		_ = p.Signal(syscall.SIGKILL)
		return step.Outcome{}, errors.New("nobody answers on its port: control's messages are in the kernel's log")
	}
	if end := p.End(); end != "exit status 0" {
		return step.Outcome{}, fmt.Errorf("nobody answers on its port: the probe ended with %s", end)
	}
	up := console.Uptime()
	m.log.Kernel("ashlar: ", fmt.Sprintf("ready in %.2f s", up.Seconds()))
	return step.Outcome{
		Message: "answers at " + endpoint(m.host()),
		Record:  func() { m.apiAnswers, m.readyAfter = true, up },
	}, nil
}

// probeAPI is the helper: it repeats a TLS handshake until one succeeds. It
// runs without privileges because control may answer anything.
func probeAPI(address string) error {
	if err := setNoNewPrivs(); err != nil {
		return err
	}
	for {
		// It is this host's own port, and nothing is said on the connection.
		d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		conn, err := d.DialContext(ctx, "tcp", address)
		cancel()
		if err == nil {
			conn.Close()
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// setNoNewPrivs is for all threads of this process.
func setNoNewPrivs() error {
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("set no_new_privs: %w", errno)
	}
	return nil
}
