package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/control"
	"github.com/ashlar-hv/ashlar/mgmt/control/serve"
)

const (
	// memoryLimit makes the runtime collect early, gcPercent more often than by
	// default: control shares a host that wants to be small.
	memoryLimit = 96 << 20
	gcPercent   = 50
	// maxSettings bounds the settings document in bytes.
	maxSettings = 1 << 20
	// closedTime is how long control answers without its store until it tries to open it
	// again. After as long init counts a program as one that runs well.
	closedTime = 30 * time.Second
	storeFile  = "control.db"
	coreSocket = "core.sock"
)

// options are where control finds what it works with.
type options struct {
	listen, settings, state, core string
}

func run(args []string, stderr io.Writer) int {
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{ReplaceAttr: brief}))
	var o options
	flags := flag.NewFlagSet("ashlar-control", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.listen, "listen", "", "`address` to listen on, unconfined; descriptor 3 is used without")
	flags.StringVar(&o.settings, "settings", "", "settings `file`; descriptor 4 is read without")
	flags.StringVar(&o.state, "state", layout.ControlStateDir, "`directory` of the store")
	flags.StringVar(&o.core, "core", layout.ControlCoreDir, "`directory` of core.sock")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(gcPercent)
	if err := o.serve(ctx, log); err != nil {
		log.Error("control cannot work", "error", err)
		return 1
	}
	return 0
}

// brief drops the time, of which the kernel log has its own, and what is empty.
func brief(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey || a.Value.Kind() == slog.KindString && a.Value.String() == "" {
		return slog.Attr{}
	}
	return a
}

func (o options) serve(ctx context.Context, log *slog.Logger) error {
	began := time.Now()
	settings, err := o.readSettings()
	if err != nil {
		return err
	}
	l, err := o.listener()
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }() // Serve has closed it already where it got so far
	id := serve.Identity{ClientCA: settings.ClientCA, Certificate: settings.Certificate, Key: settings.Key}
	config, err := id.TLS()
	if errors.Is(err, serve.ErrNoCA) {
		return stayClosed(ctx, l, err, log)
	}
	if err != nil {
		return err
	}
	host, err := control.Open(filepath.Join(o.state, storeFile), filepath.Join(o.core, coreSocket), log)
	if err != nil {
		return errors.Join(err, o.closed(ctx, l, config, err, log))
	}
	defer func() {
		if err := host.Close(); err != nil {
			log.Error("store not closed", "error", err)
		}
	}()
	if o.listen == "" {
		if err := confine(); err != nil {
			return err
		}
	}
	log.Info("control starts", "host", settings.Hostname, "version", settings.Version, "address", l.Addr().String(), "took", time.Since(began).Round(time.Millisecond))
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { host.Run(ctx) })
	go func() { // what has faulted holds locks: nothing can be ended in order any more
		select {
		case <-host.Broken():
			log.Error("the store cannot be read any more: control ends, to be started again")
			os.Exit(1)
		case <-ctx.Done():
		}
	}()
	host.WaitReady(ctx)
	return serve.Serve(ctx, l, config, host.Handler(), log)
}

// closed serves an API that says why there is no store, for a while: then init starts control
// again, which tries anew.
func (o options) closed(ctx context.Context, l net.Listener, config *tls.Config, why error, log *slog.Logger) error {
	log.Error("the API answers without its store", "because", why, "trying_again_in", closedTime)
	if o.listen == "" {
		if err := confine(); err != nil {
			return err
		}
	}
	c := control.NewClosed(filepath.Join(o.core, coreSocket), why, log)
	ctx, cancel := context.WithTimeout(ctx, closedTime)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { c.Run(ctx) })
	return serve.Serve(ctx, l, config, c.Handler(), log)
}

// stayClosed lets nobody in until ctx ends. The listening socket ends for all who hold
// it, so that a client is refused instead of left waiting.
func stayClosed(ctx context.Context, l net.Listener, why error, log *slog.Logger) error {
	log.Error("the API stays closed to everyone", "because", why)
	if t, ok := l.(*net.TCPListener); ok {
		if raw, err := t.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_RDWR) })
		}
	}
	_ = l.Close()
	<-ctx.Done()
	return nil
}

func (o options) listener() (net.Listener, error) {
	if o.listen != "" {
		return net.Listen("tcp", o.listen)
	}
	f := os.NewFile(layout.ControlListenFD, "listener")
	if f == nil {
		return nil, fmt.Errorf("descriptor %d is not open: init hands over the listening socket there", layout.ControlListenFD)
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("listening socket at descriptor %d: %w", layout.ControlListenFD, err)
	}
	return l, nil
}

func (o options) readSettings() (layout.ControlSettings, error) {
	var s layout.ControlSettings
	b, err := o.settingsBytes()
	if err != nil {
		return s, fmt.Errorf("read settings: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read settings: %w", err)
	}
	return s, nil
}

func (o options) settingsBytes() ([]byte, error) {
	if o.settings != "" {
		return os.ReadFile(o.settings)
	}
	f := os.NewFile(layout.ControlSettingsFD, "settings")
	if f == nil {
		return nil, fmt.Errorf("descriptor %d is not open: init hands over the settings there", layout.ControlSettingsFD)
	}
	defer f.Close()
	// From the start, wherever an earlier reader of the same memfd has left off.
	return io.ReadAll(io.NewSectionReader(f, 0, maxSettings))
}
