// Package transfer sends files and folders to a peer: verified, resumable, at the speed of the lane below it.
//
//	tree, err := source.Walk(ctx, []string{"photos"}, nil)
//	dial := func(ctx context.Context) (*session.Session, error) { return client.Connect(ctx, pid, tag) }
//	t := transfer.Push(ctx, dial, tree, nil)               // to a peer that receives
//	for p := range t.Watch(ctx, time.Second) {
//		fmt.Println(p.Phase, p.Verified, "of", p.Bytes, p.ETA)
//	}
//	result, err := t.Wait()
//
//	service, err := transfer.NewService(&transfer.ServiceConfig{Receive: decide})
//	service.Handle(server)                                 // answers pushes, if decide takes them
//	share, err := service.Share(tree, nil)                 // and fetches of shared trees
//	t = transfer.Fetch(ctx, []transfer.Dialer{dial}, share.Ref(), "Downloads", nil) // at the other peer
//
// # Push and fetch
//
// A push begins at once: each piece is hashed while it is sent, and its hash is sent with it. A fetch names a Ref: the hash of the list of
// files, and a token. If the sender has called Tree.Hash before, the list has the files' hashes, so that the Ref pins every byte, and
// several peers with the same files can serve one fetch together. Otherwise a Ref pins names, sizes and times, and the session vouches for
// the bytes.
//
// # Invariants
//
// A file appears under its name at the receiver only once it is complete, verified and on the disk. Nothing is replaced unless requested,
// and nothing outside the destination is touched. A file that is already present, with the same size and time, is not
// sent: ReceiveOptions.Checksum compares contents. Data that Progress calls durable survives a power cut.
//
// # Losses
//
// A transfer outlives its connection: the opener dials again for Options.ResumeWindow, and continues with the missing data. It outlives its
// process too: the receiver keeps received data in a folder .xfer-... of the destination, where the same Push or Fetch finds it. At most 64
// MiB are fetched again, and seldom more than two seconds' worth. A full disk pauses a transfer until there is room.
//
// # Cancellation
//
// The end of the ctx, and Transfer.Cancel, stop a transfer on both sides. Received data stays for the next run, or until Discard
// or DiscardUnused.
// All goroutines have ended when Wait returns.
//
// # Limits
//
// Files have at most 4 TiB, and the limits of Rules apply. The list of files is held in memory, with 32 bytes for each piece of
// the files being transferred, and about ten pieces. A piece has 256 KiB, or up to 16 MiB in files of more than 64 GiB.
//
// # Stability
//
// The bytes are specified in SPEC.md. Programs may compare the Codes.
package transfer
