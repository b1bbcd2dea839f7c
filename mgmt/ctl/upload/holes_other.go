//go:build !linux

package upload

// dataFrom knows of no holes here: zero blocks are found by reading.
func (s *Source) dataFrom(off int64) (int64, error) { return off, nil }
