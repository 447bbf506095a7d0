/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The table of commands, for ioctl.c and its tests.
 */
#ifndef _HMM_REF_IOCTL_H
#define _HMM_REF_IOCTL_H

#include <uapi/hmm_ref.h>

#include "hmm_ref.h"

#define HMM_REF_NR_CMDS		(HMM_REF_CMD_EVICT_ALL + 1)

/* The struct of any command; all start with the same members. */
union hmm_ref_cmd {
	struct {
		u32 size;
		u32 flags;
	} common;
	struct hmm_ref_info info;
	struct hmm_ref_migrate migrate;
	struct hmm_ref_access access;
	struct hmm_ref_snapshot snapshot;
	struct hmm_ref_stats stats;
	struct hmm_ref_audit audit;
	struct hmm_ref_exclusive exclusive;
	struct hmm_ref_atomic atomic;
	struct hmm_ref_evict evict;
	struct hmm_ref_evict_all evict_all;
};

/**
 * struct hmm_ref_op - a command, for the dispatcher
 * @size: size of its struct
 * @min_size: size of the first version of its struct
 * @flags: mask of known flags
 * @reserved: offset of a reserved u32, 0 if there is none
 * @range: offset of addr, followed by length; 0 if the command takes no range
 * @align: required alignment of addr and length, in bytes
 * @is_valid: checks the members that only this command has; NULL if any value
 *	is valid
 * @handler: called with a valid command
 */
struct hmm_ref_op {
	unsigned int size;
	unsigned int min_size;
	unsigned int flags;
	unsigned int reserved;
	unsigned int range;
	unsigned int align;
	bool (*is_valid)(const union hmm_ref_cmd *cmd);
	int (*handler)(struct hmm_ref_client *client, union hmm_ref_cmd *cmd);
};

extern const struct hmm_ref_op hmm_ref_ops[HMM_REF_NR_CMDS];

int hmm_ref_transfer_begin(struct hmm_ref_transfer *transfer, bool write,
			   void __user *user);
int hmm_ref_get_cmd(const struct hmm_ref_op *op, const struct mm_struct *mm,
		    void __user *ucmd, union hmm_ref_cmd *cmd);

#endif /* _HMM_REF_IOCTL_H */
