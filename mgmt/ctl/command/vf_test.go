package command

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

func TestParseVF(t *testing.T) {
	for s, want := range map[string]*ashlarv1.VirtualFunction{
		"eth1": {Links: []string{"links/eth1"}},
		"eth1+links/eth2,mac=02-00-00-00-00-0A,vlan=10,qos=3,rate=100,trust=on,spoofchk=off,state=disable": {
			Links: []string{"links/eth1", "links/eth2"}, MacAddress: "02:00:00:00:00:0a", Vlan: 10, Qos: 3, MaxRateMbps: 100,
			Trust: true, SpoofCheck: proto.Bool(false), LinkState: ashlarv1.VirtualFunction_LINK_STATE_DISABLE},
		"link=path-0000:00-1c.0-00.0,spoofchk=on,state=auto": {Links: []string{"links/path-0000:00-1c.0-00.0"}, SpoofCheck: proto.Bool(true)},
	} {
		got, err := ParseVF(s)
		if d := cmp.Diff(&ashlarv1.HostDevice{VirtualFunction: want}, got, protocmp.Transform()); d != "" || err != nil {
			t.Errorf("ParseVF(%q) (-want +got), %v:\n%s", s, err, d)
		}
	}
	for s, wrong := range map[string]string{
		"": "", ",vlan=1": "", "vlan=1": "name a link", "eth1,vlan=x": "vlan", "eth1,mac=1": "unicast", "eth1,trust=maybe": "on or off",
		"eth1,state=up": "auto, enable", "eth1,speed=1": "", "eth1,vlan=-1": "vlan",
	} {
		if got, err := ParseVF(s); err == nil || !strings.Contains(err.Error(), wrong) {
			t.Errorf("ParseVF(%q) = %v, %v, want an error with %q", s, got, err, wrong)
		}
	}
}

func TestParseNamespaces(t *testing.T) {
	got, err := parseNamespaces("1+2,,3")
	if err != nil || len(got) != 3 || len(got[0].Ids) != 2 || len(got[1].Ids) != 0 || got[2].Ids[0] != 3 {
		t.Errorf("parseNamespaces = %v, %v", got, err)
	}
	if got, err := parseNamespaces(""); got != nil || err != nil {
		t.Errorf("parseNamespaces of nothing = %v, %v", got, err)
	}
	for _, s := range []string{"a", "1+", "1;2", "-1"} {
		if got, err := parseNamespaces(s); err == nil {
			t.Errorf("parseNamespaces(%q) = %v", s, got)
		}
	}
}
