package api

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestIntroductions(t *testing.T) {
	one := Introduction{Peer: strings.Repeat("ab", 16), Name: "laptop", User: "alice", Inbound: true, Count: 3, First: 1_000_000, Last: 1_000_600, Paths: "direct relay"}
	for _, list := range [][]Introduction{{one}, {one, {Count: 1, First: 1, Last: 2}}} {
		value, n := EncodeIntroductions(list)
		got, err := ParseIntroductions(value)
		if err != nil || n != len(list) || !reflect.DeepEqual(got, list) {
			t.Errorf("%+v became %+v, %v", list, got, err)
		}
	}
	if value, n := EncodeIntroductions(nil); value != "" || n != 0 {
		t.Errorf("nothing became %q", value)
	}
	// What does not fit waits for the next request; the longest names leave room for some.
	long := one
	long.Name, long.User = strings.Repeat("n", 64), strings.Repeat("u", 64)
	many := make([]Introduction, 100)
	for i := range many {
		many[i] = long
	}
	value, n := EncodeIntroductions(many)
	if got, err := ParseIntroductions(value); n < 25 || n > MaxIntroductions || len(value) > 12<<10 || err != nil || len(got) != n {
		t.Errorf("%d in %d bytes, %v", n, len(value), err)
	}
	for name, change := range map[string]func(*Introduction){
		"no count": func(i *Introduction) { i.Count = 0 }, "less than none": func(i *Introduction) { i.Count = -1 },
		"no time": func(i *Introduction) { i.First = 0 }, "times out of order": func(i *Introduction) { i.Last = i.First - 1 },
		"long peer": func(i *Introduction) { i.Peer = strings.Repeat("a", 65) }, "long name": func(i *Introduction) { i.Name = strings.Repeat("a", 256) },
		"long user": func(i *Introduction) { i.User = strings.Repeat("a", 256) }, "long paths": func(i *Introduction) { i.Paths = strings.Repeat("a", 65) },
	} {
		bad := one
		change(&bad)
		b, err := json.Marshal([]Introduction{one, bad})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseIntroductions(base64.RawURLEncoding.EncodeToString(b)); !errors.Is(err, errIntroductions) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzIntroductions: whatever comes in the header, what is taken is within bounds.
func FuzzIntroductions(f *testing.F) {
	value, _ := EncodeIntroductions([]Introduction{{Peer: "ab", Count: 1, First: 1, Last: 1}})
	for _, s := range []string{value, "", "W10", "bnVsbA", "e30", "W251bGxd", "!", strings.Repeat("A", 20_000)} {
		f.Add(s, []byte("[]"))
	}
	f.Add("", []byte(`[{"peer":"x","count":1e400,"first":1,"last":1}]`))
	f.Add("", []byte(`[{"peer":"\u0000","name":"\ud800","count":1,"first":9223372036854775807,"last":9223372036854775807}]`))
	f.Fuzz(func(t *testing.T, value string, body []byte) {
		for _, v := range []string{value, base64.RawURLEncoding.EncodeToString(body)} {
			list, err := ParseIntroductions(v)
			if err != nil {
				if list != nil || !errors.Is(err, errIntroductions) {
					t.Fatalf("%q: %v, %v", v, list, err)
				}
				continue
			}
			if len(list) == 0 || len(list) > MaxIntroductions {
				t.Fatalf("%d of them", len(list))
			}
			for _, i := range list {
				if i.Count < 1 || i.First < 1 || i.Last < i.First || len(i.Peer)+len(i.Name)+len(i.User)+len(i.Paths) > 64+255+255+64 {
					t.Fatalf("%+v", i)
				}
			}
		}
	})
}
