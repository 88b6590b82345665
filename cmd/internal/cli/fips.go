package cli

import (
	"fmt"
	"io"
	"runtime"
	"slices"

	"weft/overlay/fips"
)

// PrintFIPS prints what doctor --fips says, as "fips/1" or for people.
func PrintFIPS(w io.Writer, program string, r fips.Report, asJSON bool) error {
	r.Program, r.Version, r.System, r.Go = program, Version(), runtime.GOOS+"/"+runtime.GOARCH, runtime.Version()
	if asJSON {
		return PrintObject(w, "fips/1", r)
	}
	fmt.Fprintf(w, "%s %s %s %s\n\n", r.Program, r.Version, r.System, r.Go)
	if err := PrintFindings(w, r.Findings); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, inside := range []bool{true, false} {
		heading := "inside the module"
		if !inside {
			heading = "outside the module"
		}
		fmt.Fprintln(w, heading+":")
		if !slices.ContainsFunc(r.Uses, func(u fips.Use) bool { return u.Inside == inside }) {
			fmt.Fprintln(w, "  nothing")
		}
		for _, u := range r.Uses {
			if u.Inside != inside {
				continue
			}
			fmt.Fprintf(w, "  %s: %s\n", u.What, u.Algorithms)
			if u.Why != "" {
				fmt.Fprintf(w, "    %s\n", u.Why)
			}
		}
	}
	for i, p := range r.Peers {
		if i == 0 {
			fmt.Fprintln(w, "tunnels:")
		}
		where := "outside the module"
		if p.Inside {
			where = "inside the module"
		}
		fmt.Fprintf(w, "  %s: keys %s, packets %s (%s)\n", Plain(p.Name), Plain(p.KeyExchange), p.Suite, where)
	}
	return nil
}
