//go:build marked

package main

import "github.com/ashlar-hv/ashlar/vmm/jail/jailtest"

func init() { mark = jailtest.Marked }
