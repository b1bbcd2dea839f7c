package protocol

// A DiskSet holds numbers of disks, 0 to 31: a bit for each. What is beyond is left out.
type DiskSet uint32

// Add adds the disk with number n.
func (s *DiskSet) Add(n int) { *s |= bit(n) }

// Remove takes the disk with number n out.
func (s *DiskSet) Remove(n int) { *s &^= bit(n) }

// Has reports whether the disk with number n is in it.
func (s DiskSet) Has(n int) bool { return s&bit(n) != 0 }

func bit(n int) DiskSet {
	if n < 0 {
		return 0
	}
	return 1 << n
}
