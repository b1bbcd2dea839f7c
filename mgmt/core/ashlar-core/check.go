package main

import (
	"log/slog"
	"os"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcheck"
	"golang.org/x/sys/unix"
)

// checkHost looks for what makes this host weak.
func checkHost(require []string) hostcall.HostCheckResult {
	return hostcheck.Read(os.DirFS("/"), require, coreScheduling())
}

// coreScheduling tells whether the kernel can keep others off a core. Asked for a cookie
// without a place to put it, only one that can gets as far as EFAULT.
func coreScheduling() bool {
	return unix.Prctl(unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_GET, 0, unix.PR_SCHED_CORE_SCOPE_THREAD, 0) == unix.EFAULT
}

// reportWeakness writes each weakness to the log, and returns what the operator has to know.
func reportWeakness(r hostcall.HostCheckResult, log *slog.Logger) []string {
	for _, f := range r.Findings {
		if f.Result != hostcall.Passed {
			log.Warn("host check", "check", f.Name, "result", f.Result, "required", f.Required, "detail", f.Detail)
		}
	}
	if err := hostcheck.Refusal(r); err != nil {
		log.Error("no guest is started", "error", err)
		return []string{err.Error()}
	}
	return nil
}
