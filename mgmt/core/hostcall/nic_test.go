package hostcall

import "testing"

func TestCheckNICLimits(t *testing.T) {
	for _, tt := range []struct {
		l    NetworkLimits
		want string
	}{
		{NetworkLimits{}, ""},
		{NetworkLimits{MinBytesPerSecond, MinBurstBytes, MinPacketsPerSecond, 1}, ""},
		{NetworkLimits{MaxBytesPerSecond, 60 * MaxBytesPerSecond, MaxPacketsPerSecond, 60 * MaxPacketsPerSecond}, ""},
		{NetworkLimits{BytesPerSecond: MinBytesPerSecond - 1}, "bytesPerSecond"},
		{NetworkLimits{BytesPerSecond: 1 << 63}, "bytesPerSecond"},
		{NetworkLimits{BytesPerSecond: MinBytesPerSecond, BurstBytes: MinBurstBytes - 1}, "burstBytes"},
		{NetworkLimits{BytesPerSecond: MinBytesPerSecond, BurstBytes: 60*MinBytesPerSecond + 1}, "burstBytes"},
		{NetworkLimits{BurstBytes: MinBurstBytes}, "burstBytes"},
		{NetworkLimits{PacketsPerSecond: 1}, "packetsPerSecond"},
		{NetworkLimits{PacketsPerSecond: MaxPacketsPerSecond + 1}, "packetsPerSecond"},
		{NetworkLimits{BytesPerSecond: 1 << 20, BurstPackets: 1}, "burstPackets"},
		{NetworkLimits{PacketsPerSecond: 100, BurstPackets: 6001}, "burstPackets"},
	} {
		for direction, l := range map[string]*NICLimits{"receive.": {Receive: &tt.l}, "transmit.": {Transmit: &tt.l}} {
			want := tt.want
			if want != "" {
				want = direction + want
			}
			if field, wrong := l.Check(); field != want || (wrong == "") != (want == "") {
				t.Errorf("Check of %s%+v = %q, %q; want %q", direction, tt.l, field, wrong, want)
			}
		}
	}
	if field, wrong := (*NICLimits)(nil).Check(); field != "" || wrong != "" {
		t.Errorf("Check of no limits = %q, %q", field, wrong)
	}
}

func TestBursts(t *testing.T) {
	for l, want := range map[NetworkLimits][2]uint64{
		{}:                          {DefaultBurstBytes, DefaultBurstPackets},
		{BytesPerSecond: 100 << 20}: {25 << 20, DefaultBurstPackets},
		{PacketsPerSecond: 1000, BurstPackets: 3}: {DefaultBurstBytes, 3},
		{PacketsPerSecond: 1000}:                  {DefaultBurstBytes, 250},
		{BytesPerSecond: 1, BurstBytes: 5}:        {5, DefaultBurstPackets},
	} {
		if bytes, packets := l.Bursts(); bytes != want[0] || packets != want[1] {
			t.Errorf("bursts of %+v = %d, %d; want %v", l, bytes, packets, want)
		}
	}
}
