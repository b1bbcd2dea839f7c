package hostcall

import "testing"

func TestVFSettingsCheck(t *testing.T) {
	for field, s := range map[string]VFSettings{
		"":          {MAC: "02:00:5e:00:53:01", VLAN: 4094, QoS: 7, MaxRate: 1000, NoSpoofCheck: true, Trust: true, State: LinkEnable},
		"mac":       {MAC: "01:00:5e:00:53:01"},
		"vlan":      {VLAN: 4095},
		"qos":       {QoS: 1},
		"maxRate":   {MaxRate: -1},
		"state":     {State: "up"},
		"qos of 8":  {VLAN: 1, QoS: 8},
		"mac zero":  {MAC: "00:00:00:00:00:00"},
		"mac long":  {MAC: "02:00:5e:00:53:01:00:00"},
		"mac other": {MAC: "02-00-5E-00-53-01"},
	} {
		got, wrong := s.Check()
		if (wrong == "") != (field == "") || len(got) > len(field) || field[:len(got)] != got {
			t.Errorf("%+v is wrong in %q: %q", s, got, wrong)
		}
	}
}

func TestVFsCheck(t *testing.T) {
	for _, tt := range []struct {
		v     VFs
		field string
	}{
		{VFs{Count: 2}, ""},
		{VFs{Count: 2, Namespaces: [][]int{{1, 2}, nil}}, ""},
		{VFs{Count: -1}, "count"},
		{VFs{Count: 257}, "count"},
		{VFs{Count: 2, Namespaces: [][]int{{1}}}, "namespaces"},
		{VFs{Count: 1, Namespaces: [][]int{{0}}}, "namespaces"},
		{VFs{Count: 2, Namespaces: [][]int{{3}, {3}}}, "namespaces"},
	} {
		if field, wrong := tt.v.Check(); field != tt.field || (wrong == "") != (field == "") {
			t.Errorf("%+v is wrong in %q: %s", tt.v, field, wrong)
		}
	}
}
