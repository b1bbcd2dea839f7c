package disk

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChoose(t *testing.T) {
	const size = 1 << 30
	content := map[string]Content{"ours": Data, "blank": Blank, "blank2": Blank, "full": Foreign, "stick": Blank, "usb": Foreign, "small": Blank, "ro": Data}
	disk := func(name string) Disk {
		return Disk{Name: name, Node: "/dev/" + name, Size: size, Serial: "s-" + name, Model: "m-" + name}
	}
	stick, usb, small, ro := disk("stick"), disk("usb"), disk("small"), disk("ro")
	stick.Partitions = []Partition{{Label: "ASHLAR-CFG"}}
	usb.Removable = true
	small.Size = 1 << 20
	ro.ReadOnly = true
	broken := disk("broken")
	blank, blank2, full, ours := disk("blank"), disk("blank2"), disk("full"), disk("ours")

	for _, test := range []struct {
		name     string
		disks    []Disk
		wishes   []Wish
		want     *Choice
		problems []string // a part of each
	}{
		{"none there", nil, []Wish{{Any: true}}, nil, []string{"No disk matches any disk"}},
		{"ours before blank", []Disk{blank, ours}, []Wish{{Any: true}}, &Choice{Disk: ours, Action: Mount}, nil},
		{"first blank", []Disk{blank, blank2}, []Wish{{Any: true}}, &Choice{Disk: blank, Action: Format}, nil},
		{"blank beside full", []Disk{full, blank}, []Wish{{Any: true}}, &Choice{Disk: blank, Action: Format}, nil},
		{"full is left alone", []Disk{full}, []Wish{{Any: true}}, nil, []string{"/dev/full (1.0 GiB, m-full, serial s-full) holds precious data. It was left alone"}},
		{"erase", []Disk{full}, []Wish{{Serial: "s-full", Erase: true}}, &Choice{Disk: full, Action: Format, Erases: "precious data"}, nil},
		{"erase any", []Disk{full}, []Wish{{Any: true, Erase: true}}, &Choice{Disk: full, Action: Format, Erases: "precious data"}, nil},
		{"erase any prefers blank", []Disk{full, blank}, []Wish{{Any: true, Erase: true}}, &Choice{Disk: blank, Action: Format}, nil},
		{"erase any prefers ours", []Disk{full, blank, ours}, []Wish{{Any: true, Erase: true}}, &Choice{Disk: ours, Action: Mount}, nil},
		{"erase keeps ours", []Disk{ours}, []Wish{{Serial: "s-ours", Erase: true}}, &Choice{Disk: ours, Action: Mount}, nil},
		{"erase any spares removable", []Disk{usb}, []Wish{{Any: true, Erase: true}}, nil, []string{"is removable"}},
		{"erase removable by name", []Disk{usb}, []Wish{{Model: "m-usb", Erase: true}}, &Choice{Disk: usb, Action: Format, Erases: "precious data"}, nil},
		{"never the stick", []Disk{stick}, []Wish{{Any: true, Erase: true}}, nil, []string{"No disk matches"}},
		{"not even by name", []Disk{stick}, []Wish{{Serial: "s-stick", Erase: true}}, nil, []string{"it is a boot stick"}},
		{"too small", []Disk{small}, []Wish{{Path: "/dev/small"}}, nil, []string{"it is smaller than"}},
		{"read-only", []Disk{ro}, []Wish{{Path: "/dev/ro"}}, nil, []string{"it is read-only"}},
		{"by path", []Disk{blank, blank2}, []Wish{{Path: "/dev/blank2"}}, &Choice{Disk: blank2, Action: Format}, nil},
		{"second wish", []Disk{blank}, []Wish{{Serial: "nowhere"}, {Any: true}}, &Choice{Disk: blank, Action: Format}, []string{"No disk matches serial nowhere"}},
		{"second wish after a refusal", []Disk{full, ours}, []Wish{{Serial: "s-full"}, {Any: true}}, &Choice{Disk: ours, Action: Mount}, []string{"/dev/full"}},
		{"unreadable", []Disk{broken}, []Wish{{Any: true, Erase: true}}, nil, []string{"cannot be read: I/O error"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, problems := Choose(test.disks, test.wishes, func(d Disk) (Content, string, error) {
				c, ok := content[d.Name]
				if !ok {
					return Foreign, "", errors.New("I/O error")
				}
				return c, "precious data", nil
			})
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("choice (-want +got):\n%s", diff)
			}
			if len(problems) != len(test.problems) {
				t.Fatalf("problems %q, want %q", problems, test.problems)
			}
			for i, want := range test.problems {
				if !strings.Contains(problems[i], want) {
					t.Errorf("problem %q, want %q in it", problems[i], want)
				}
			}
		})
	}
}
