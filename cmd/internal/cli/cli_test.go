package cli

import "testing"

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
