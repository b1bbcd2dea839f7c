package guest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

func TestBalloonFits(t *testing.T) {
	for _, tt := range []struct {
		balloon, memory uint64
		want            bool
	}{
		{0, 32 << 20, true}, {4096, 32 << 20, false}, {64 << 20, 256 << 20, true}, {224 << 20, 256 << 20, true},
		{224<<20 + 4096, 256 << 20, false}, {4095, 256 << 20, false}, {1 << 63, 256 << 20, false}, {0, 0, false},
	} {
		if got := balloonFits(tt.balloon, tt.memory); got != tt.want {
			t.Errorf("balloonFits(%d, %d) = %v, want %v", tt.balloon, tt.memory, got, tt.want)
		}
	}
}

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestCheckBalloon(t *testing.T) {
	many := &protocol.Balloon{Statistics: map[string]uint64{}}
	for i := range maxStatistics + 1 {
		many.Statistics[fmt.Sprint("s", i)] = 1
	}
	for name, b := range map[string]*protocol.Balloon{
		"none": nil, "many": many,
		"escape": {Statistics: map[string]uint64{"\x1b[2J": 1}},
		"before": {StatisticsTime: now.AddDate(-1, 0, 0)},
		"after":  {StatisticsTime: now.AddDate(0, 1, 0)},
	} {
		if err := checkBalloon(b, now, now); code(err) != hostcall.Internal {
			t.Errorf("%s: %v, want an error", name, err)
		}
	}
	for _, b := range []protocol.Balloon{{}, {TargetBytes: 1, ActualBytes: 1 << 63, Statistics: map[string]uint64{"free_bytes": 1}, StatisticsTime: now}} {
		if err := checkBalloon(&b, now.Add(-time.Hour), now); err != nil {
			t.Error(err)
		}
	}
}

// FuzzBalloon checks what a VMM in its guest's hands may tell.
func FuzzBalloon(f *testing.F) {
	f.Add([]byte(`{"targetBytes":1,"statistics":{"free_bytes":7},"statisticsTime":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"statistics":{"\u001b[2J":7}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var balloon *protocol.Balloon
		if json.Unmarshal(b, &balloon) != nil {
			return
		}
		err := checkBalloon(balloon, now, now)
		if err != nil && (len(err.Error()) > maxMessage || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' })) {
			t.Errorf("message %q", err)
		}
	})
}
