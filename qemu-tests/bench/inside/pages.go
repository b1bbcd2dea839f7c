package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ashlar-hv/ashlar/drivers/hugepages"
	"github.com/ashlar-hv/ashlar/qemu-tests/bench/figure"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// pagesMiB is the memory of guests on pages of each size.
const pagesMiB = 1024

// A kind is pages that guest memory is made of, measured as a side.
type kind struct {
	side
	pages protocol.Pages
	// untouched: nobody has used the memory before.
	untouched bool
}

// The kinds: pages of 1 GiB are what the others are compared with.
var kinds = []kind{
	{side: side{figure.Ours, startAshlar}, pages: protocol.Pages1GiB},
	{side: side{"2 MiB pages", startAshlar}, pages: protocol.Pages2MiB},
	{side: side{"4 KiB pages", startAshlar}, pages: protocol.SmallPages},
}

// onKinds is inOrder for kinds, for each of which there is a pool as large as a guest.
func (b *bench) onKinds(what string, kinds []kind, do func(kind, int) error) error {
	of := make(map[string]kind)
	var sides []side
	for _, k := range kinds {
		of[k.name] = k
		sides = append(sides, k.side)
	}
	return b.inOrder(what, b.rounds, sides, func(s side, round int) error {
		free, err := pool(of[s.name].pages)
		if err != nil {
			return err
		}
		defer free()
		return do(of[s.name], round)
	})
}

// pool makes a pool for a guest, on whichever node has the room, until the function that it returns is
// called.
func pool(pages protocol.Pages) (func(), error) {
	size := pages.PoolSize()
	if size == 0 {
		return func() {}, nil
	}
	// Files that were read, and small pages here and there, are in the way of large ones.
	for _, name := range []string{"drop_caches", "compact_memory"} {
		if err := os.WriteFile(filepath.Join("/proc/sys/vm", name), []byte("1"), 0); err != nil {
			return nil, fmt.Errorf("make room for pages of %s: %w", pages, err)
		}
	}
	want := int64(pagesMiB << 20 / size)
	sizes, err := hugepages.Sizes()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(sizes, func(s hugepages.Size) bool { return s.PageBytes == int64(size) })
	if i < 0 {
		return nil, fmt.Errorf("the host has no pages of %s", pages)
	}
	for _, n := range sizes[i].Nodes {
		free := func() { _ = hugepages.Set(int64(size), n.ID, 0) }
		if err := hugepages.Set(int64(size), n.ID, want); err != nil {
			return nil, err
		}
		p, err := hugepages.Read(size)
		if err == nil && p.Available() >= want {
			return free, nil
		}
		if free(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("no node of the host's has the room for %d pages of %s: give it more memory (make bench BENCH_MEMORY=12G)", want, pages)
}

// onPages measures guests on pages of each kind: the start, and reads of memory that miss the TLB.
func (b *bench) onPages() error {
	loads := []load{{"1 GiB guest: 8-byte reads at random places", "touch 512", "1/s", figure.Higher, perSecond, "", 0, false}}
	return b.onKinds("guests on pages of each size", kinds, func(k kind, round int) error {
		sp := tiny(1, pagesMiB)
		sp.pages = k.pages
		g, took, err := b.startAndWait(k.side, sp)
		if err != nil {
			return err
		}
		g.end()
		b.sample("1 GiB guest: VMM start to guest's /init", "ms", figure.Lower, k.name, round, milliseconds(took))
		sp.initramfs = "load.cpio"
		return b.underLoad(k.side, sp, round, loads)
	})
}
