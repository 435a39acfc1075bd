// How many requests wait or run, of all and of each tenant: also those that the engine has not heard of yet.

import { OpenLoraError } from '../errors.js';
import type { NativeLimits } from '../native/binding.js';
import type { ActiveRequest } from './generation.js';

export class Admission {
  readonly #tenants = new Map<string, number>();

  constructor(
    /** By number. */
    private readonly requests: Map<number, ActiveRequest>,
    private readonly limits: Pick<NativeLimits, 'maxQueued' | 'maxQueuedPerTenant'>,
  ) {}

  /** Throws ERR_OVERLOADED where there is no room for one more. */
  check(tenant: string | undefined): void {
    const { maxQueued, maxQueuedPerTenant } = this.limits;
    const refuse = (whose: string, limit: string, count: number): never => {
      const message = `${count} requests${whose} wait or run, as many as ${limit} allows`;
      throw new OpenLoraError('ERR_OVERLOADED', message, tenant === undefined ? {} : { tenant });
    };
    if (this.requests.size >= maxQueued) refuse('', 'limits.maxQueued', maxQueued);
    if (tenant === undefined || (this.#tenants.get(tenant) ?? 0) < maxQueuedPerTenant) return;
    refuse(` of tenant '${tenant}'`, 'limits.maxQueuedPerTenant', maxQueuedPerTenant);
  }

  add(active: ActiveRequest, tenant: string | undefined): void {
    this.requests.set(active.number, active);
    active.tenant = tenant;
    if (tenant !== undefined) this.#tenants.set(tenant, (this.#tenants.get(tenant) ?? 0) + 1);
  }

  /** One that was refused was never added. */
  release(number: number): void {
    const tenant = this.requests.get(number)?.tenant;
    this.requests.delete(number);
    if (tenant === undefined) return;
    const count = this.#tenants.get(tenant)! - 1;
    if (count === 0) this.#tenants.delete(tenant);
    else this.#tenants.set(tenant, count);
  }
}
