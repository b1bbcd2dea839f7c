package store

import "strconv"

// A Hugepage is how many huge pages of one size the host is to have on a NUMA node. There
// is none for 0.
type Hugepage struct {
	PageBytes int64 `json:"pageBytes"`
	Node      int   `json:"node"`
	Pages     int64 `json:"pages"`
}

// Key tells sizes and nodes apart.
func (h Hugepage) Key() string {
	return strconv.FormatInt(h.PageBytes, 10) + "@" + strconv.Itoa(h.Node)
}

// Hugepages is the table of them, by Key.
var Hugepages = Table[Hugepage]{[]byte("hugepages"), Hugepage.Key}
