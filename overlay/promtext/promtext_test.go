package promtext

import (
	"math"
	"testing"
)

func TestText(t *testing.T) {
	var got Text
	got.Head("g", Gauge, "Help with \\ and\na line.")
	got.Value("g", -0.5, "who", "")
	got.Value("g", 1796042519, "who", "a\"\\\n}", "where", "Küche")
	got.Head("c_total", Counter, "")
	got.Value("c_total", 1e21)
	want := `# HELP g Help with \\ and\na line.
# TYPE g gauge
g{who=""} -0.5
g{who="a\"\\\n}",where="Küche"} 1796042519
# HELP c_total 
# TYPE c_total counter
c_total 1e+21
`
	if string(got.Bytes()) != want {
		t.Errorf("got:\n%s", got.Bytes())
	}
	for v, want := range map[float64]string{0: "0", 0.005: "0.005", 1 << 40: "1099511627776", math.Inf(1): "+Inf"} {
		if got := Number(v); got != want {
			t.Errorf("%v is written %s, not %s", v, got, want)
		}
	}
}
