package main

import (
	"context"
	"io"
	"net"
	"os"

	"github.com/spf13/cobra"

	"weft/overlay/proxy/pipe"
	"weft/overlay/status"
)

func ncCmd() *cobra.Command {
	var udp bool
	cmd := &cobra.Command{
		Use:   "nc NAME PORT",
		Short: "Connect standard input and output to a port of a device",
		Long: `Connect standard input and output to a port of a device.

The end of standard input is passed on as a half-close; the program ends when
the device closes the connection. Made for ssh:

  ssh -o ProxyCommand='weft nc %h %p' pi@kitchen-pi`,
		Args:              args(cobra.ExactArgs(2)),
		ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, a []string) error {
			name, err := status.CleanName(a[0])
			if err != nil {
				return err
			}
			if _, err := parsePort(a[1]); err != nil {
				return err
			}
			network := "tcp"
			if udp {
				network = "udp"
			}
			conn, err := client(cmd).DialContext(cmd.Context(), network, net.JoinHostPort(name, a[1]))
			if err != nil {
				return err
			}
			defer conn.Close()
			return netcat(cmd.Context(), conn, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVarP(&udp, "udp", "u", false, "send each read of standard input as one datagram")
	return cmd
}

// netcat copies both ways until the remote has closed. A read of in cannot be
// interrupted, so its goroutine may outlive netcat; the program ends next.
func netcat(ctx context.Context, conn net.Conn, in io.Reader, out io.Writer) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	go func() {
		// Hide io.WriterTo, so that the large buffers are used.
		if _, err := pipe.Copy(conn, struct{ io.Reader }{in}); err != nil {
			return // the remote is gone; the other direction reports it
		}
		if cw, ok := conn.(interface{ CloseWrite() error }); ok {
			cw.CloseWrite()
		}
	}()
	var w io.Writer = struct{ io.Writer }{out}
	if f, ok := out.(*os.File); ok {
		w = struct{ io.Writer }{f}
	}
	_, err := pipe.Copy(w, struct{ io.Reader }{conn})
	if ctx.Err() != nil {
		return context.Canceled
	}
	return err
}
