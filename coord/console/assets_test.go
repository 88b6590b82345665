package console

import "testing"

func TestLean(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"x.css", "/* a\n  b */\na {\n  color: red; /* why */\n}\n\n\nb {\n}\n", "\na {\ncolor: red; \n}\nb {\n}\n"},
		{"x.js", "// a\nconst u = \"https://x\"; // b\n  // c\nf();\n", "const u = \"https://x\"; // b\nf();\n"},
	} {
		if got := string(lean(c.name, []byte(c.in))); got != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}
