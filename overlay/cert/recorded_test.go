package cert

import (
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "record what is not recorded yet")

// An old token can still be parsed, and old versions of weft can parse today's.
func TestRecordedToken(t *testing.T) {
	const file = "testdata/token-1"
	want := Token{URLs: []string{"https://weft.example:8443", "https://[2001:db8::1]"}, Secret: []byte("0123456789abcdef")}
	for i := range want.Server {
		want.Server[i], want.Network[i] = byte(i), byte(255-i)
	}
	b, err := os.ReadFile(file)
	if os.IsNotExist(err) && *update {
		os.MkdirAll("testdata", 0o755)
		b, err = []byte(want.String()+"\n"), os.WriteFile(file, []byte(want.String()+"\n"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseToken(string(b))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if s := want.String(); s != strings.TrimSpace(string(b)) {
		t.Errorf("today it is %s", s)
	}
}
