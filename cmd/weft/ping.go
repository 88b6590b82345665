package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/overlay/localapi"
	"weft/overlay/status"
)

func pingCmd() *cobra.Command {
	var asJSON *bool
	var count int
	var untilDirect, verbose bool
	var timeout, interval time.Duration
	cmd := &cobra.Command{
		Use:   "ping NAME",
		Short: "Ping a device through the tunnel: round trip time and path",
		Long: `Send echo requests through the tunnel and print the round trip time and the path
of each.

At the end, and after Ctrl-C, standard error gets a summary. Exit code 0 if one of
them (with --until-direct: the last) was answered.`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, a []string) error {
			if count < 0 || timeout <= 0 || interval < 0 {
				return usagef("-c and --interval must not be negative, --timeout must be positive")
			}
			// --until-direct has its own end; -c can bound it, too.
			if untilDirect && !cmd.Flags().Changed("count") {
				count = 30
			}
			c := client(cmd)
			var sum pingSum
			done := func(err error) error {
				if verbose && !*asJSON && sum.received > 0 {
					printTunnel(cmd, c, a[0])
				}
				if !*asJSON && sum.sent > 0 {
					fmt.Fprintln(cmd.ErrOrStderr(), sum.String())
				}
				return err
			}
			var last error
			why := "" // why the path is not direct
			for i := 0; i < count || count == 0; i++ {
				if i > 0 && sleep(cmd.Context(), interval) != nil {
					return done(context.Canceled)
				}
				pong, err := c.Ping(cmd.Context(), a[0], timeout)
				if cmd.Context().Err() != nil {
					return done(context.Canceled)
				}
				switch status.KindOf(err) {
				case "":
					sum.answered(pong.RTT)
					why = pong.Reason
					if err := printPong(cmd.OutOrStdout(), pong, *asJSON); err != nil {
						return err
					}
					if untilDirect && pong.Path == status.PathDirect {
						return done(nil)
					}
				case status.KindTimeout, status.KindUnreachable:
					// The node may come up in the meantime: continue.
					sum.sent++
					fmt.Fprintln(cmd.ErrOrStderr(), oneLine(err.Error()))
					last = err
				default:
					return done(err)
				}
			}
			switch {
			case untilDirect:
				message := "no direct path to " + a[0] + " yet"
				if why != "" {
					message += ": " + why
				}
				return done(&status.Error{Kind: status.KindTimeout, Message: message, Hint: "it is still reachable through the relay; see: weft netcheck"})
			case sum.received == 0 && last != nil:
				return done(exitCode(status.KindOf(last).ExitCode())) // already printed
			}
			return done(nil)
		},
	}
	asJSON = cli.JSONFlag(cmd)
	cmd.Flags().IntVarP(&count, "count", "c", 4, "number of echo requests; 0 means until interrupted")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "at the end, say how the packets are encrypted")
	cmd.Flags().BoolVar(&untilDirect, "until-direct", false, "stop once the path is direct; exit 7 if it does not become direct")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "how long to wait for each reply")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "time between echo requests")
	return cmd
}

// printTunnel prints how packets to a peer are encrypted, if there is a tunnel.
func printTunnel(cmd *cobra.Command, c *localapi.Client, name string) {
	st, err := c.Look(cmd.Context(), name)
	if err != nil {
		return
	}
	p, err := c.Resolve(cmd.Context(), name)
	if err != nil {
		return
	}
	now := time.Now()
	for _, p := range onlyPeer(st.Peers, p) {
		if p.KeyExchange != "" {
			t := table(cmd.OutOrStdout())
			printKeys(liner(t), st, p, cmp.Or(deref(st.Time), now), now)
			t.Flush()
		}
	}
}

func deref(t *time.Time) (at time.Time) {
	if t != nil {
		at = *t
	}
	return at
}

// pingSum is the summary of several echo requests.
type pingSum struct {
	sent, received int
	least, most    time.Duration
	total          time.Duration
}

func (s *pingSum) answered(rtt time.Duration) {
	s.sent++
	s.received++
	s.total += rtt
	s.most = max(s.most, rtt)
	if s.received == 1 || rtt < s.least {
		s.least = rtt
	}
}

// String is the last line of ping(8), without the name: scripts count the lines with a
// name as replies.
func (s *pingSum) String() string {
	text := fmt.Sprintf("%d sent, %d received, %d%% lost", s.sent, s.received, 100*(s.sent-s.received)/s.sent)
	if s.received == 0 {
		return text
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return fmt.Sprintf("%s; min/avg/max %.1f/%.1f/%.1f ms", text, ms(s.least), ms(s.total/time.Duration(s.received)), ms(s.most))
}

func printPong(w io.Writer, p status.Pong, asJSON bool) error {
	if asJSON {
		return printLine(w, struct {
			Schema   string          `json:"schema"`
			Name     string          `json:"name"`
			Addr     string          `json:"addr"`
			RTTms    float64         `json:"rtt_ms"`
			Path     status.PathKind `json:"path"`
			Reason   string          `json:"path_reason"`
			Relay    string          `json:"relay"`
			Endpoint string          `json:"endpoint"`
			Suite    string          `json:"suite"`
			Exchange string          `json:"key_exchange"`
		}{"ping/1", p.Peer.Name, p.Addr.String(), float64(p.RTT.Microseconds()) / 1000, p.Path, p.Reason, p.Relay, p.Endpoint, p.Suite, p.KeyExchange})
	}
	how := p.Path.Words()
	if p.Path == status.PathDirect && p.Endpoint != "" {
		how = "direct path " + p.Endpoint
	}
	_, err := fmt.Fprintf(w, "%s %s: %s by %s\n", cli.Plain(p.Peer.Name), p.Addr, millis(p.RTT), cli.Plain(how))
	return err
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
