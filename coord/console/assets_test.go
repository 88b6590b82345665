package console

import "testing"

func TestLean(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"x.css", "/* a\n  b */\na {\n  color: red; /* why */\n}\n\n\nb {\n}\n", " a{color:red}b{}"},
		{"x.css", ".a :hover,\n.b  >  .c::after {\n  content: \"/* ; */  \" / \"\";\n}\n", ".a :hover,.b > .c::after{content:\"/* ; */  \" / \"\"}"},
		{"x.css", "@media (width < 46rem) and (hover: hover) {\n  a {\n    width: calc(1px + 2px);\n  }\n}\n", "@media (width < 46rem) and (hover:hover){a{width:calc(1px + 2px)}}"},
		{"x.js", "// a\nconst u = \"https://x\"; // b\n  // c\nf();\n", "const u = \"https://x\"; // b\nf();\n"},
	} {
		if got := string(lean(c.name, []byte(c.in))); got != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}
