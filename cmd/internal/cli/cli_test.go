package cli

import (
	"bytes"
	"os"
	"testing"
	"time"
)

func TestPlainDisarms(t *testing.T) {
	for in, want := range map[string]string{
		"kitchen-pi": "kitchen-pi", "a\x1b[2Jb": "a?[2Jb", "a\nb": "a?b", "evil\u202egnp": "evil?gnp", "Küche 🍳": "Küche 🍳", "": "",
	} {
		if got := Plain(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if Dash("") != "-" || Dash("x") != "x" {
		t.Error("Dash")
	}
}

// An object names its form first, whatever is in it.
func TestPrintObject(t *testing.T) {
	for _, c := range []struct {
		v    any
		want string
	}{
		{struct{}{}, "{\n  \"schema\": \"x/1\"\n}\n"},
		{map[string]string{"a": "<b>"}, "{\n  \"schema\": \"x/1\",\n  \"a\": \"<b>\"\n}\n"},
	} {
		var b bytes.Buffer
		if err := PrintObject(&b, "x/1", c.v); err != nil || b.String() != c.want {
			t.Errorf("%q, %v", b.String(), err)
		}
	}
}

// Progress is for people who look on: a file gets none of it.
func TestProgressIsForTerminals(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := NewProgress(f, "backing up")
	p.shown = time.Time{}
	if n, err := p.Write(make([]byte, 1000)); n != 1000 || err != nil || p.done != 1000 {
		t.Error(n, err)
	}
	p.End()
	if fi, err := f.Stat(); err != nil || fi.Size() != 0 {
		t.Errorf("%v bytes, %v", fi.Size(), err)
	}
	var shown bytes.Buffer
	p.out, p.shown = &shown, time.Time{}
	p.Write(make([]byte, 2_000_000))
	p.End()
	if shown.String() != "\r\x1b[Kbacking up: 2.0 MB\r\x1b[K" {
		t.Errorf("%q", shown.String())
	}
	if IsTerminal(f) || IsTerminal(&shown) {
		t.Error("a terminal?")
	}
}
