package main

import (
	"maps"
	"slices"
	"testing"
)

func TestInboundOfKernel(t *testing.T) {
	for _, c := range []struct {
		flag    string
		limited bool
		ports   []uint16
		maps    map[uint16]string
		wrong   bool
	}{
		{"all", false, nil, nil, false},
		{"none", true, nil, nil, false},
		{"80,22", true, []uint16{22, 80}, nil, false},
		{"80=80,22", true, []uint16{22}, map[uint16]string{80: "localhost:80"}, false},
		{"all,80=[::1]:81", false, nil, map[uint16]string{80: "[::1]:81"}, false},
		{"8080=192.168.1.9:80", true, nil, map[uint16]string{8080: "192.168.1.9:80"}, false},
		{"80=localhost:1055", true, nil, nil, true},
		{"1055", true, []uint16{1055}, nil, false}, // ours listens there on loopback only
	} {
		rules, err := parseInbound(c.flag)
		if err != nil {
			t.Fatal(err)
		}
		in, err := rules.kernel(map[uint16]bool{1055: true})
		if (err != nil) != c.wrong || err != nil && !isUsage(err) {
			t.Errorf("%s: %v", c.flag, err)
		}
		if err == nil && (in.Limited != c.limited || !slices.Equal(in.Ports, c.ports) || !maps.Equal(in.Maps, c.maps)) {
			t.Errorf("%s: %+v", c.flag, in)
		}
	}
}
