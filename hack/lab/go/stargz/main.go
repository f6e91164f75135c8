// Command stargz is containerd's stargz-snapshotter, out of its library: the module of its own command is not to be had.
//
//	stargz serve ROOT SOCKET   the snapshotter, on a Unix socket, as it is without a configuration
//	stargz convert             standard input, a tar, becomes an eStargz layer on standard output
//
// The second says on standard error the digest of what the layer unpacks to, and that of its table of contents.
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/service"
	"google.golang.org/grpc"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "stargz:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "serve":
		return serve(args[1], args[2])
	case len(args) == 1 && args[0] == "convert":
		return convert(os.Stdin, os.Stdout)
	}
	return errors.New("serve ROOT SOCKET, or convert")
}

func serve(root, socket string) error {
	snapshotter, err := service.NewStargzSnapshotterService(context.Background(), root, &service.Config{})
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(snapshotter))
	return server.Serve(listener)
}

func convert(source io.Reader, target io.Writer) error {
	archive, err := io.ReadAll(source)
	if err != nil {
		return err
	}
	section := io.NewSectionReader(bytes.NewReader(archive), 0, int64(len(archive)))
	layer, err := estargz.Build(section, estargz.WithCompressionLevel(gzip.BestSpeed))
	if err != nil {
		return err
	}
	defer layer.Close()
	if _, err := io.Copy(target, layer); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, layer.DiffID(), layer.TOCDigest())
	return nil
}
