package microcode

import "slices"

// servers are Intel's processors of which an image has the updates: those of servers with VT-d.
// All that Intel has published takes 14 MiB, more than an image has room for. Left out for
// their size are Xeon 6 (06-ad-01, 06-ae-01, 06-af-03: 1.5 to 1.7 MiB each) and Xeon Max
// (0.6 MiB); what they have comes with the firmware.
var servers = []struct {
	cpuid, platforms uint32 // platforms 0: all
	name             string
}{
	{0x206d6, 0, "Xeon E5"},
	{0x206d7, 0, "Xeon E5"},
	{0x306a9, 0, "Xeon E3 v2"},
	{0x306e4, 0, "Xeon E5 v2"},
	{0x306e7, 0, "Xeon E7 v2"},
	{0x306c3, 0, "Xeon E3 v3"},
	{0x306f2, 0, "Xeon E5 v3"},
	{0x306f4, 0, "Xeon E7 v3"},
	{0x40671, 0, "Xeon E3 v4"},
	{0x406f1, 0, "Xeon E5 v4, E7 v4"},
	{0x50662, 0, "Xeon D-1500"},
	{0x50663, 0, "Xeon D-1500"},
	{0x50664, 0, "Xeon D-1500"},
	{0x50665, 0, "Xeon D-1600"},
	{0x50653, 0, "Xeon Scalable"},
	{0x50654, 0, "Xeon Scalable, D-2100, W"},
	{0x50657, 0, "Xeon Scalable, 2nd generation"},
	{0x5065b, 0, "Xeon Scalable, 3rd generation"},
	{0x506e3, 0, "Xeon E3 v5"},
	{0x506f1, 0, "Atom C3000"},
	{0x606a6, 0, "Xeon Scalable, 3rd generation"},
	{0x606c1, 0, "Xeon D-1700, D-2700"},
	{0x806f8, 0x87, "Xeon Scalable, 4th generation"},
	{0x906e9, 0, "Xeon E3 v6"},
	{0x906ea, 0, "Xeon E-2100"},
	{0x906ed, 0, "Xeon E-2200"},
	{0xa0671, 0, "Xeon E-2300"},
	{0xb0671, 0, "Xeon E-2400"},
	{0xc06f2, 0, "Xeon Scalable, 5th generation"},
}

// Servers are those of Intel's updates that an image gets, each once.
func Servers(all []Update) []Update {
	var list []Update
	for _, u := range all {
		if u.Vendor == Intel && forServers(u) && !slices.ContainsFunc(list, u.same) {
			list = append(list, u)
		}
	}
	return list
}

// serverSignatures are the processors that Servers looks for; all platforms where it takes all.
func serverSignatures() []Signature {
	list := make([]Signature, len(servers))
	for i, s := range servers {
		list[i] = Signature{s.cpuid, s.platforms}
		if s.platforms == 0 {
			list[i].Platforms = 0xff
		}
	}
	return list
}

func forServers(u Update) bool {
	for _, s := range serverSignatures() {
		for _, of := range u.Signatures {
			if of.CPUID == s.CPUID && of.Platforms&s.Platforms != 0 {
				return true
			}
		}
	}
	return false
}

// same tells whether o is the same update, as files of several processors may hold one.
func (u Update) same(o Update) bool { return slices.Equal(u.Data, o.Data) }
