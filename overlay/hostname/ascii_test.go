package hostname

import (
	"testing"

	"golang.org/x/net/idna"
)

// net/http converts names like the IDNA library: names of every kind, and names that
// either rejects.
func TestASCII(t *testing.T) {
	for _, name := range []string{
		"küche", "Küche", "KÜCHE.weft.internal", "ku\u0308che", "bücher.example.org", "厨房", "厨房。lan", "straße", "faß.de",
		"ελλάς", "пример.испытание", "مثال", "אבגד", "ｆｕｌｌ.lan", "ﬁsch", "ñ-1", "a.ü.b", "💡", "i\u0307stanbul", "İstanbul", "a\u200db", "ن\u200cم",
		"-ü", "ü-", "ü..b", ".ü", "ab--ü", "ü_b", "*.ü", "ü b", "ü:b", "ü/b", "[ü]", "ü%b", "ü@b", "ü?b", "ü#b", "\xff", "ü\x00", "\u0301a", "א1a", "xn--a.ü", "xn--kche-0ra.ü",
		"⒈com", "ü．b", "\u00ad", "a\u00adb", "∕", "℀ü",
	} {
		want, wantErr := idna.Lookup.ToASCII(name)
		got, err := ASCII(name)
		if (err == nil) != (wantErr == nil) || err == nil && got != want {
			t.Errorf("%q: %q, %v; the library says %q, %v", name, got, err, want, wantErr)
		}
	}
}
