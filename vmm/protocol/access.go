package protocol

// An Access is how fast memory is for processors, as the host's firmware has it; what is 0 is
// not known.
type Access struct {
	ReadLatency    uint64 `json:"rl,omitempty"` // picoseconds
	WriteLatency   uint64 `json:"wl,omitempty"`
	ReadBandwidth  uint64 `json:"rb,omitempty"` // MB/s
	WriteBandwidth uint64 `json:"wb,omitempty"`
}
