package lab

import "strconv"

// ControllerSerial is the serial number of the NVMe controller of Controller.
const ControllerSerial = "ashlar-many"

// Controller are options of QEMU for an NVMe controller with two virtual functions, behind a root
// port of its own, and for its namespaces, from 1 on, which are kept in files. No controller has
// these at first: QEMU 10.0 attaches others anew whenever a driver starts a controller.
func Controller(files ...string) []string {
	args := []string{
		"-device", "pcie-root-port,id=rp4,chassis=4", "-device", "nvme-subsys,id=s0",
		"-device", "nvme,id=many,serial=" + ControllerSerial + ",bus=rp4,subsys=s0,sriov_max_vfs=2,sriov_vq_flexible=4,sriov_vi_flexible=2,max_ioqpairs=6,msix_qsize=5",
	}
	for i, f := range files {
		n := strconv.Itoa(i + 1)
		args = append(args, "-drive", "if=none,id=ns"+n+",format=raw,file="+f,
			"-device", "nvme-ns,drive=ns"+n+",bus=many,nsid="+n+",shared=on,detached=on")
	}
	return args
}
