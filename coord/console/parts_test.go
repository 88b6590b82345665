package console

import (
	"html/template"
	"math"
	"strconv"
	"strings"
	"testing"
)

// draw renders one of the shared parts.
func draw(t *testing.T, part string, data any) string {
	t.Helper()
	var b strings.Builder
	if err := templates["error"]().ExecuteTemplate(&b, part, data); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSpark(t *testing.T) {
	nan := math.NaN()
	ms := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) + " ms" }
	for _, c := range []struct {
		values []float64
		lines  int
		text   string
	}{
		{nil, 0, "Latency: nothing measured yet"},
		{[]float64{nan, math.Inf(1)}, 0, "Latency: nothing measured yet"},
		{[]float64{5}, 1, "Latency: 5 ms"},
		{[]float64{5, 5, 5}, 1, "Latency: 5 ms"},
		{[]float64{12, 48, 15}, 1, "Latency: 12 ms to 48 ms, last 15 ms"},
		{[]float64{12, nan, 48, 15, nan}, 2, "Latency: 12 ms to 48 ms, last 15 ms"},
		{[]float64{-math.MaxFloat64, math.MaxFloat64}, 1, ""},
	} {
		v := spark("Latency", c.values, ms)
		if len(v.Lines) != c.lines || c.text != "" && v.Text != c.text {
			t.Errorf("%v: %d lines, %q", c.values, len(v.Lines), v.Text)
		}
		for _, l := range v.Lines {
			for _, n := range strings.FieldsFunc(l, func(r rune) bool { return r == ' ' || r == ',' }) {
				if f, err := strconv.ParseFloat(n, 64); err != nil || f < 0 || f > sparkWidth {
					t.Errorf("%v: coordinate %q", c.values, n)
				}
			}
		}
		draw(t, "spark", v)
	}
	// A long row is drawn with few points, and its peak is one of them.
	long := make([]float64, 10_000)
	long[4321] = 99
	v := spark("Latency", long, ms)
	if n := len(strings.Fields(v.Lines[0])); n != sparkMost || v.Text != "Latency: 0 ms to 99 ms, last 0 ms" {
		t.Errorf("%d points, %q", n, v.Text)
	}
}

// What is said with colour is said with a shape and a word too.
func TestParts(t *testing.T) {
	shapes := map[string]bool{}
	for kind, word := range statusWords {
		html := draw(t, "status", kind)
		shape := html[strings.Index(html, "<svg"):strings.Index(html, "</svg>")]
		if shapes[shape] || !strings.Contains(html, "<span>"+word+"</span>") {
			t.Errorf("%s: %s", kind, html)
		}
		shapes[shape] = true
	}
	if v, err := statusOf("offline", "Last seen <b>"); err != nil || !strings.Contains(draw(t, "status", v), "Last seen &lt;b&gt;") {
		t.Error("another word:", err)
	}
	if _, err := statusOf("well"); err == nil {
		t.Error("a status that there is not")
	}
	paths := map[string]bool{}
	for kind, word := range map[string]string{"direct": "Direct", "udp": "Relayed UDP", "relay": "Relay"} {
		html := draw(t, "thread", kind)
		if line := html[strings.Index(html, "<path"):strings.Index(html, "</svg>")]; paths[line] || !strings.Contains(html, word) {
			t.Errorf("%s: %s", kind, html)
		} else {
			paths[line] = true
		}
	}
	if got := strings.TrimSpace(draw(t, "thread", "")); got != "" {
		t.Errorf("no path: %s", got)
	}
	if got := draw(t, "copy", copyOf("100.64.0.7", "address of plc-7")); !strings.Contains(got, `aria-label="Copy address of plc-7"`) || !strings.Contains(got, ">Copy</button>") {
		t.Error(got)
	}
	if got := draw(t, "chip", tab{Text: template.HTMLEscapeString("<b>"), Href: "/devices"}); strings.Contains(got, "<b>") {
		t.Error(got)
	}
	if list, err := commandList("Open a shell", "weft ssh nas", "Nothing", ""); err != nil || len(list) != 1 || !strings.Contains(draw(t, "terminal", list), "weft ssh nas") {
		t.Error(list, err)
	}
	if strings.Count(draw(t, "skeleton", 3), "<i>") != 3 {
		t.Error("rows of a skeleton")
	}
}

// All pages can be parsed: they are not before somebody opens them.
func TestTemplates(t *testing.T) {
	for name, parsed := range templates {
		for _, part := range []string{"layout", "title", "content"} {
			if parsed().Lookup(part) == nil {
				t.Errorf("%s: no %s", name, part)
			}
		}
	}
}
